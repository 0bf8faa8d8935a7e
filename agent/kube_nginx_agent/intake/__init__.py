"""What the administrator wants: the file, its names, the accepted copy. Never touches nginx."""
