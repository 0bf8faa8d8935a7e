# fish completion for kube-nginx-agent(8)

set -l verbs run check render status reload version
set -l command complete -c kube-nginx-agent

$command -f
$command -n "not __fish_seen_subcommand_from $verbs" -a run -d 'run the agent in the foreground'
$command -n "not __fish_seen_subcommand_from $verbs" -a check -d 'tell whether a list would go live'
$command -n "not __fish_seen_subcommand_from $verbs" -a render -d 'print the nginx config made from a list'
$command -n "not __fish_seen_subcommand_from $verbs" -a status -d 'show how the agent and its nginx are'
$command -n "not __fish_seen_subcommand_from $verbs" -a reload -d 'read backends.yaml now and wait until it is live'
$command -n "not __fish_seen_subcommand_from $verbs" -a version -d 'show the versions of the agent and of its nginx'
$command -s h -l help -d 'show the options'
$command -n '__fish_seen_subcommand_from run' -l standalone -d 'start nginx itself'
$command -n '__fish_seen_subcommand_from run' -l config -r -F -d 'the list of apiservers'
$command -n '__fish_seen_subcommand_from run check version' -l nginx -r -F -d 'the nginx program'
$command -n '__fish_seen_subcommand_from run' -l state-dir -x -a '(__fish_complete_directories)' -d 'keeps the nginx config'
$command -n '__fish_seen_subcommand_from run check render status reload' -l run-dir -x -a '(__fish_complete_directories)' -d 'holds the pid file and the sockets'
$command -n '__fish_seen_subcommand_from status' -l json -d 'print everything, for programs'
$command -n '__fish_seen_subcommand_from check render' -F
