# bash completion for guestagent(1)
_guestagent() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
  local commands="daemon call check-config doctor cat restore controller replicate detach-replication promote-to-replica-source
    eject-replica-source rebuild topology instances
    register forget tasks retry cancel"
  case $prev in
    --config | --to) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    --oneshot | call) mapfile -t COMPREPLY < <(compgen -W "$(guestagent help methods 2> /dev/null | sed -n 's/^\([a-z_]*\).*/\1/p')" -- "$cur"); return ;;
  esac
  mapfile -t COMPREPLY < <(compgen -W "$commands --oneshot --config --syntax-only --allow-plain --json --help --version" -- "$cur")
}
complete -F _guestagent guestagent
