"""Is a kube-apiserver well? Observations -> Health (pure), and the probes that observe."""
