# bash completion for guestagent(1)
_guestagent() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
  local commands="daemon call check-config doctor cat restore controller replicate detach-replication topology instances
    register forget tasks retry cancel"
  local methods="get_replication_snapshot attach_replication_slave detach_replication_slave delete_replication_snapshot
    verify_replication_snapshot list_replication_snapshots cleanup_replication_source get_replication_status checksum_tables
    get_info list_jobs get_job wait_job cancel_job"
  case $prev in
    --config | --to) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    --oneshot | call) mapfile -t COMPREPLY < <(compgen -W "$methods" -- "$cur"); return ;;
  esac
  mapfile -t COMPREPLY < <(compgen -W "$commands --oneshot --config --syntax-only --allow-plain --json --help --version" -- "$cur")
}
complete -F _guestagent guestagent
