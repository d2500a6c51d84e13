"""The options of servers that operators set, for tests/heavy/options: what they can be, and where a refusal would be right.

A value is the lines of an option file (a text), or Value(...) with what it needs beside them. In both "{dir}" is a directory of
the server's own, outside of its data; directories that a line names there are made. "{port}" is a free port, "{galera}" Galera's
library. What is not declared here with `refuse` must work: whoever adds a reason there says that no honest agent could do better."""

from dataclasses import dataclass
from typing import NamedTuple

EVERY = "mny"  # MariaDB 10.11, MariaDB 11.8, MySQL 9.7
MARIADB, MYSQL = "mn", "y"


@dataclass(frozen=True)
class Value:
    lines: str = ""
    sql: str = ""  # after the start, by the lab's all-powerful account
    files: tuple = ()  # (name below {dir}, contents)
    each_start: str = ""  # statements of an init_file, for what has no place in an option file

    def option_lines(self):
        lines = [line.strip() for line in self.lines.splitlines() if line.strip()]
        return lines + (["init-file={dir}/each_start.sql"] if self.each_start else [])

    def all_files(self):
        statements = "\n".join(s.strip() + ";" for s in self.each_start.split(";") if s.strip())
        return self.files + ((("each_start.sql", statements + "\n"),) if self.each_start else ())


class Refuse(NamedTuple):
    """`when` it is set on the "source", there and not on the target ("source only"), on the "target", on either ("any"), or when the two
    "differ"; the refusal has to name one of `words`."""

    when: str
    why: str
    words: tuple


@dataclass(frozen=True)
class Option:
    name: str
    values: tuple
    on: str = EVERY
    sides: str = "st"  # s: on a source, t: on a target
    init: bool = False  # the data must be made with it
    needs: str = ""  # plugins, certificates, keyring: what the runner has to have
    refuse: tuple = ()
    overruled: tuple = ()  # variables that a replica needs otherwise and the agent sets itself
    hook: str = ""  # a step of the runner's that belongs to it
    first: str = ""  # such a step before the snapshot, where it is set on both
    only: str = ""  # on a target: the one database whose changes its filter lets through
    alone: bool = False  # not in combinations


def option(name, *values, refuse=(), overruled=(), **more):
    values = tuple(v if isinstance(v, Value) else Value(v) for v in values)
    refuse = tuple(Refuse(w, why, words if isinstance(words, tuple) else (words,)) for w, why, words in refuse)
    return Option(name, values, refuse=refuse, overruled=tuple(overruled), **more)


def each_start(statements):
    return Value(each_start=statements)


PASSWORDS = ("strict_password_validation", "password")
KEYS = (("differ", "the keys of the source's tables are needed to read them", ("key_management", "encrypt")),)
TLS = "ssl-ca={tls}/ca.pem\nssl-cert={tls}/cert.pem\nssl-key={tls}/key.pem\n"
ENCRYPTION = (
    "plugin-load-add=file_key_management\nfile-key-management-filename={tls}/keys.txt\ninnodb-encrypt-tables=ON\ninnodb-encrypt-log=ON\n"
    "encrypt-tmp-files=ON\naria-encrypt-tables=ON\nencrypt-binlog=ON\ninnodb-encryption-threads=1"
)
GALERA = (
    "wsrep-provider={galera}\nwsrep-on=ON\nwsrep-cluster-name=lab\nwsrep-cluster-address=gcomm://\nwsrep-node-address=127.0.0.1\n"
    "wsrep-provider-options='gcache.size=8M;gmcast.listen_addr=tcp://127.0.0.1:{port}'\nbinlog-format=ROW\n"
    "innodb-autoinc-lock-mode=2"
)

OPTIONS = [
    # What a session takes over from the globals: the agent's own as well.
    option("sql_mode", "sql-mode=ANSI", "sql-mode=NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT"),
    option(
        "sql_mode.strict", "sql-mode=STRICT_ALL_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,NO_ENGINE_SUBSTITUTION", "sql-mode="
    ),
    option("sql_mode.oracle", "sql-mode=ORACLE", on=MARIADB),
    option("sql_mode.pad", "sql-mode=PAD_CHAR_TO_FULL_LENGTH,NO_UNSIGNED_SUBTRACTION,HIGH_NOT_PRECEDENCE"),
    option("old_mode", "old-mode=NO_PROGRESS_INFO,ZERO_DATE_TIME_CAST", on=MARIADB),
    option("init_connect", "init-connect='SET NAMES latin1'", "init-connect='SET autocommit=0'"),
    option(
        "init_connect.limits",
        "init-connect='SET SESSION sql_select_limit=1, max_join_size=1'",
        refuse=[("source", "a receiving thread ends with error 1104 at its first question", "max_join_size")],
    ),
    option("init_connect.large_limits", "init-connect='SET SESSION sql_big_selects=1, max_join_size=1000000'"),
    option(
        "max_join_size.later",
        each_start("SET GLOBAL max_join_size=1, sql_big_selects=0"),
        on=MARIADB,
        refuse=[("source", "a receiving thread ends with error 1104 at its first question", "max_join_size")],
    ),
    option(
        "init_connect.audit",
        "init-connect='INSERT INTO lab.logins VALUES (CURRENT_USER())'",
        refuse=[("source", "who cannot do what it does cannot connect: the replicas' account neither", "init_connect")],
    ),
    option("autocommit", "autocommit=0"),
    option("tx_read_only", "transaction-read-only=ON"),
    option("transaction_isolation", "transaction-isolation=SERIALIZABLE", "transaction-isolation=READ-UNCOMMITTED"),
    option("completion_type", "completion-type=CHAIN", "completion-type=RELEASE"),
    option(
        "sql_select_limit", each_start("SET GLOBAL sql_select_limit=1"), each_start("SET GLOBAL sql_select_limit=3")
    ),
    option(
        "max_join_size",
        "max-join-size=1",
        refuse=[("source", "a receiving thread ends with error 1104 at its first question", "max_join_size")],
    ),
    option("sql_safe_updates", each_start("SET GLOBAL sql_safe_updates=1")),
    option("sql_auto_is_null", each_start("SET GLOBAL sql_auto_is_null=1")),
    option("sql_quote_show_create", each_start("SET GLOBAL sql_quote_show_create=0")),
    option("foreign_key_checks", each_start("SET GLOBAL foreign_key_checks=0, unique_checks=0")),
    option("group_concat_max_len", "group-concat-max-len=4"),
    option("max_sort_length", "max-sort-length=8", on=MARIADB),
    option("max_error_count", "max-error-count=0"),
    option("sql_warnings", each_start("SET GLOBAL sql_warnings=1, sql_notes=0")),
    option("tmp_tables", "tmp-table-size=1024\nmax-heap-table-size=16384"),
    option("default_week_format", "default-week-format=5"),
    option("lc_messages", "lc-messages=de_DE", "lc-messages=ja_JP"),
    option("lc_time_names", "lc-time-names=ru_RU"),
    option("use_stat_tables", "use-stat-tables=NEVER", on=MARIADB),
    option("optimizer_switch", "optimizer-switch=derived_merge=off,index_merge=off"),
    option("big_tables", "big-tables=1"),
    option(
        "show_create_table_verbosity", "information-schema-stats-expiry=86400\nshow-create-table-verbosity=ON", on=MYSQL
    ),
    option("terminology_use_previous", "terminology-use-previous=BEFORE_8_0_26", on=MYSQL),
    option("require_row_format", "session-track-gtids=OWN_GTID\nsession-track-schema=OFF", on=MYSQL),
    # Time limits.
    option("wait_timeout", "wait-timeout=1\ninteractive-timeout=1", "wait-timeout=3\ninteractive-timeout=3"),
    option("net_timeouts", "net-read-timeout=1\nnet-write-timeout=1\nconnect-timeout=2"),
    option("lock_wait_timeout", "lock-wait-timeout=1\ninnodb-lock-wait-timeout=1"),
    option("max_statement_time", "max-statement-time=0.05", on=MARIADB),
    option("max_execution_time", "max-execution-time=10", on=MYSQL),
    option(
        "idle_transaction_timeout",
        "idle-transaction-timeout=1\nidle-readonly-transaction-timeout=1\nidle-write-transaction-timeout=1",
        on=MARIADB,
    ),
    # Limits.
    option("max_connections", "max-connections=10", "max-connections=2000"),
    option(
        "max_user_connections",
        "max-user-connections=1",
        "max-user-connections=2",
        refuse=[("any", "the agent and the tool need a connection each", "max_user_connections")],
    ),
    option("max_user_connections.few", "max-user-connections=5"),
    option("max_allowed_packet", "max-allowed-packet=1M", "max-allowed-packet=1G"),
    option("max_connect_errors", "max-connect-errors=1"),
    option("max_prepared_stmt_count", "max-prepared-stmt-count=0"),
    option("open_files_limit", "open-files-limit=300\ntable-open-cache=20\ntable-definition-cache=400"),
    option("thread_cache_size", "thread-cache-size=0\nback-log=1"),
    option("small_buffers", "sort-buffer-size=32K\njoin-buffer-size=1K\nread-buffer-size=8K\nnet-buffer-length=1K"),
    option("query_cache", "query-cache-type=1\nquery-cache-size=1M", on=MARIADB),
    option("max_password_errors", "max-password-errors=1", on=MARIADB),
    option("global_connection_memory", "global-connection-memory-tracking=ON\nconnection-memory-limit=2M", on=MYSQL),
    # Characters, names, time.
    option("character_set_server", "character-set-server=latin1", "character-set-server=utf16"),
    option(
        "collation_server",
        "character-set-server=utf8mb4\ncollation-server=utf8mb4_bin",
        "character-set-server=utf8mb4\ncollation-server=utf8mb4_general_ci",
    ),
    option(
        "skip_character_set_client_handshake",
        "skip-character-set-client-handshake\ncharacter-set-server=latin1",
        on=MARIADB,
    ),
    option("character_set_filesystem", "character-set-filesystem=latin1"),
    option(
        "lower_case_table_names",
        "lower-case-table-names=1",
        init=True,
        refuse=[("differ", "names that differ in case only cannot be there", "lower_case_table_names")],
    ),
    option("default_time_zone", "default-time-zone=+05:30", "default-time-zone=-11:00"),
    option(
        "explicit_defaults_for_timestamp", "explicit-defaults-for-timestamp=OFF", "explicit-defaults-for-timestamp=ON"
    ),
    option("secure_timestamp", "secure-timestamp=YES", on=MARIADB),
    # What runs by itself.
    option("event_scheduler", "event-scheduler=OFF", "event-scheduler=DISABLED"),
    option(
        "init_file",
        Value(
            "init-file={dir}/boot.sql",
            files=(("boot.sql", "SET GLOBAL max_connect_errors=777;\nSET GLOBAL group_concat_max_len=5000;\n"),),
        ),
    ),
    option(
        "init_file.writes",
        Value("init-file={dir}/boot.sql", files=(("boot.sql", "INSERT INTO lab.boots (id) VALUES (NULL);\n"),)),
        refuse=[("target", "each start of the replica would write a transaction of its own", "init_file")],
    ),
    option("init_slave", "init-slave='SET SESSION sort_buffer_size=65536'", on=MARIADB),
    option(
        "init_slave.writes",
        "init-slave='INSERT INTO lab.boots (id) VALUES (NULL)'",
        on=MARIADB,
        refuse=[("target", "each start of replication would write a transaction of its own", "init_slave")],
    ),
    # Who may write.
    option("read_only", "read-only=1", overruled=("read_only",)),
    option(
        "super_read_only",
        "super-read-only=ON",
        on=MYSQL,
        overruled=("read_only", "super_read_only"),
        refuse=[("source", "no account can be made there", "super_read_only")],
    ),
    option(
        "offline_mode", "offline-mode=ON", on=MYSQL, refuse=[("any", "no replica can connect to it", "offline_mode")]
    ),
    option(
        "skip_grant_tables",
        "skip-grant-tables\nskip-networking=0",
        alone=True,
        refuse=[("any", "no account can be made or checked there", "skip_grant_tables")],
    ),
    option("automatic_sp_privileges", "automatic-sp-privileges=0"),
    option("skip_show_database", "skip-show-database"),
    option("local_infile", "local-infile=0"),
    option("secure_file_priv", "secure-file-priv={dir}/files/"),
    option("symbolic_links", "symbolic-links=0", on=MARIADB),
    # Network and TLS.
    option("skip_networking", "skip-networking", sides="t"),
    option(
        "skip_networking.source",
        "skip-networking",
        sides="s",
        refuse=[("source", "no replica can connect to it", ("skip_networking", "port"))],
    ),
    option("bind_address", "bind-address=127.0.0.1,::1", "bind-address=*"),
    option("skip_name_resolve", "skip-name-resolve=0"),
    option("extra_port", "extra-max-connections=2\nthread-handling=pool-of-threads\nthread-pool-size=1", on=MARIADB),
    option("proxy_protocol", "proxy-protocol-networks=10.0.0.0/8", on=MARIADB),
    option("tls", TLS, TLS + "tls-version=TLSv1.3", needs="tls"),
    option(
        "require_secure_transport",
        "require-secure-transport=ON",
        on="m",
        sides="s",
        refuse=[
            (
                "source",
                "it has no certificate: replicas cannot connect",
                ("require_secure_transport", "tls", "certificate"),
            )
        ],
    ),
    option("require_secure_transport.target", "require-secure-transport=ON", on="m", sides="t"),
    option("require_secure_transport.tls", TLS + "require-secure-transport=ON", needs="tls"),
    # Passwords.
    option("default_password_lifetime", "default-password-lifetime=30", hook="age_passwords"),
    option(
        "disconnect_on_expired_password",
        "disconnect-on-expired-password=ON\ndefault-password-lifetime=1",
        hook="age_passwords",
    ),
    option(
        "simple_password_check",
        "plugin-load-add=simple_password_check",
        on="m",
        needs="plugins",
        refuse=[("any", "the server must see the password of each account", PASSWORDS)],
    ),
    option(
        "simple_password_check.lax",
        "plugin-load-add=simple_password_check\nstrict-password-validation=OFF",
        on="m",
        needs="plugins",
    ),
    option(
        "password_reuse_check",
        "plugin-load-add=password_reuse_check",
        on="m",
        needs="plugins",
        refuse=[("any", "the server must see the password of each account", PASSWORDS)],
    ),
    option(
        "validate_password",
        Value(
            sql="INSTALL COMPONENT 'file://component_validate_password'; SET GLOBAL validate_password.policy=STRONG, "
            "validate_password.length=60"
        ),
        on=MYSQL,
        alone=True,
    ),
    option(
        "password_history", "password-history=5\npassword-reuse-interval=365\npassword-require-current=ON", on=MYSQL
    ),
    option("secure_auth", "secure-auth=1\nold-passwords=0", on=MARIADB),
    option(
        "authentication_policy",
        "authentication-policy=caching_sha2_password,,",
        "authentication-policy=sha256_password,,",
        on=MYSQL,
    ),
    option(
        "caching_sha2",
        "caching-sha2-password-digest-rounds=10000\ncaching-sha2-password-auto-generate-rsa-keys=OFF",
        on=MYSQL,
    ),
    option(
        "mandatory_roles",
        Value(
            "mandatory-roles=reader\nactivate-all-roles-on-login=ON",
            sql="SET sql_log_bin=0; CREATE ROLE IF NOT EXISTS reader; GRANT SELECT ON lab.* TO reader",
        ),
        on=MYSQL,
    ),
    option("partial_revokes", "partial-revokes=ON", on=MYSQL),
    # Plugins and looking.
    option(
        "server_audit",
        "plugin-load-add=server_audit\nserver-audit-logging=ON\nserver-audit-file-path={dir}/audit/audit.log",
        on="m",
        needs="plugins",
    ),
    option(
        "plugin_load",
        "plugin-load-add=ha_blackhole\nplugin-load-add=sql_errlog\nplugin-load-add=metadata_lock_info",
        on="m",
        needs="plugins",
    ),
    option(
        "semi_sync",
        "rpl-semi-sync-master-enabled=1\nrpl-semi-sync-master-timeout=500\nrpl-semi-sync-slave-enabled=1",
        on=MARIADB,
    ),
    option(
        "semi_sync.mysql",
        "plugin-load-add=semisync_source.so\nplugin-load-add=semisync_replica.so\nrpl-semi-sync-source-enabled=1\n"
        "rpl-semi-sync-source-timeout=500\nrpl-semi-sync-replica-enabled=1",
        on=MYSQL,
    ),
    option("performance_schema", "performance-schema=ON", on=MARIADB),
    option(
        "performance_schema.off",
        "performance-schema=OFF",
        on=MYSQL,
        refuse=[("any", "Clone and the replica's state are read from there", "performance_schema")],
    ),
    option("feedback", "feedback=ON\nuserstat=1", on="m"),
    option("general_log", "general-log=1\nlog-output=TABLE", "general-log=1\nlog-output=FILE"),
    option(
        "slow_query_log",
        "slow-query-log=1\nlong-query-time=0\nlog-output=TABLE\nlog-queries-not-using-indexes=1",
        "slow-query-log=1\nlong-query-time=0\nlog-output=FILE,TABLE\nslow-query-log-file={dir}/slow/slow.log",
    ),
    option("log_error", "log-error={dir}/my log/own error.log", "log-error=own-error"),
    option("log_warnings", "log-warnings=9", "log-warnings=0", on=MARIADB),
    option("log_error_verbosity", "log-error-verbosity=1", "log-error-verbosity=3\nlog-timestamps=SYSTEM", on=MYSQL),
    # The binary log.
    option("log_bin", "log-bin={dir}/logs/mysql-bin", "log-bin=db1.example.org-bin"),
    option(
        "log_bin.file",
        "log-bin={dir}/logs/mysql-bin.log\nrelay-log={dir}/relay/relay",
        "log-bin\nlog-basename=db1",
        on=MARIADB,
    ),
    option(
        "log_bin.off",
        "skip-log-bin",
        overruled=("log_bin",),
        refuse=[("source", "there is nothing to replicate from", ("log_bin", "binary log"))],
    ),
    option("log_bin_index", "log-bin-index={dir}/logs/bi.index", "log-bin-index=other-name.index"),
    option(
        "relay_log",
        "relay-log={dir}/relay/relay-bin\nrelay-log-index={dir}/relay/relay.index",
        "relay-log=db1-relay",
        overruled=("relay_log", "relay_log_index"),
    ),
    option(
        "master_info_file",
        "master-info-file={dir}/info/master.info\nrelay-log-info-file={dir}/info/relay.info",
        on=MARIADB,
    ),
    option(
        "log_slave_updates",
        "log-slave-updates=OFF",
        "log-slave-updates=ON",
        overruled=("log_slave_updates", "log_replica_updates"),
    ),
    option("binlog_format", "binlog-format=MIXED", "binlog-format=STATEMENT", on=MARIADB),
    option("binlog_row_image", "binlog-row-image=MINIMAL", "binlog-row-image=NOBLOB"),
    option("binlog_checksum", "binlog-checksum=NONE", "binlog-checksum=CRC32"),
    option("verify_checksum", "master-verify-checksum=1\nslave-sql-verify-checksum=0", on=MARIADB),
    option("binlog_row_metadata", "binlog-row-metadata=FULL"),
    option("log_bin_compress", "log-bin-compress=ON\nlog-bin-compress-min-len=10", on=MARIADB),
    option("binlog_transaction_compression", "binlog-transaction-compression=ON", on=MYSQL),
    option(
        "binlog_row_value_options", "binlog-row-value-options=PARTIAL_JSON\nbinlog-rows-query-log-events=ON", on=MYSQL
    ),
    option("binlog_annotate", "binlog-annotate-row-events=OFF\nreplicate-annotate-row-events=OFF", on=MARIADB),
    option("binlog_alter_two_phase", "binlog-alter-two-phase=ON\nslave-parallel-threads=4", on=MARIADB),
    option("expire_logs", "binlog-expire-logs-seconds=1", "binlog-expire-logs-seconds=0"),
    option("expire_logs_days", "expire-logs-days=1", "expire-logs-days=99", on=MARIADB),
    option("binlog_expire_logs_auto_purge", "binlog-expire-logs-auto-purge=OFF", on=MYSQL),
    option("max_binlog_size", "max-binlog-size=4096\nmax-relay-log-size=4096"),
    option("max_binlog_total_size", "max-binlog-total-size=4096\nmax-binlog-size=4096", on="n"),
    option("binlog_cache_size", "binlog-cache-size=4096\nbinlog-stmt-cache-size=4096\nsync-binlog=1"),
    option("binlog_ignore_db", "binlog-ignore-db=not_there"),
    option("binlog_group_commit", "binlog-group-commit-sync-delay=20000", on=MYSQL),
    option(
        "keyring",
        Value(
            sql="SET sql_log_bin=0; CREATE DATABASE IF NOT EXISTS lab; CREATE TABLE lab.secret (id INT PRIMARY KEY, word VARCHAR(40)) "
            "ENCRYPTION='Y'; INSERT INTO lab.secret VALUES (1, 'one')"
        ),
        on=MYSQL,
        needs="keyring",
        first="share_keys",
        refuse=[("source only", "the keys of the source's tables are needed to read them", "keyring")],
        alone=True,
    ),
    option("encrypt", ENCRYPTION, on="m", needs="plugins", refuse=KEYS, alone=True),
    # GTIDs and replication.
    option("gtid_strict_mode", "gtid-strict-mode=ON", "gtid-strict-mode=OFF", on=MARIADB),
    option("gtid_domain_id", "gtid-domain-id=5", "gtid-domain-id=7", on=MARIADB),
    option("gtid_ignore_duplicates", "gtid-ignore-duplicates=ON\ngtid-pos-auto-engines=aria", on=MARIADB),
    option(
        "gtid_mode",
        "gtid-mode=ON_PERMISSIVE",
        "gtid-mode=OFF_PERMISSIVE\nenforce-gtid-consistency=WARN",
        on=MYSQL,
        refuse=[("differ", "positions of one cannot be followed by the other", "gtid_mode")],
        overruled=("gtid_mode", "enforce_gtid_consistency"),
    ),
    option(
        "gtid_mode.off",
        "gtid-mode=OFF\nenforce-gtid-consistency=OFF",
        on=MYSQL,
        refuse=[("differ", "positions of one cannot be followed by the other", "gtid_mode")],
        alone=True,
    ),
    option("server_id", "server-id=77", overruled=("server_id",)),
    option("report_host", "report-host=db7.example.org\nreport-port=3307", overruled=("report_host", "report_port")),
    option("skip_slave_start", "skip-slave-start", overruled=("skip_slave_start", "skip_replica_start")),
    option(
        "slave_parallel",
        "slave-parallel-threads=4\nslave-parallel-mode=aggressive",
        "slave-parallel-threads=4\nslave-parallel-mode=minimal",
        on=MARIADB,
    ),
    option(
        "replica_parallel_workers",
        "replica-parallel-workers=0",
        "replica-parallel-workers=8\nreplica-preserve-commit-order=OFF",
        on=MYSQL,
    ),
    option("slave_net_timeout", "slave-net-timeout=2"),
    option("slave_compressed_protocol", "slave-compressed-protocol=1"),
    option("slave_exec_mode", "slave-exec-mode=IDEMPOTENT"),
    option("slave_skip_errors", "slave-skip-errors=1062,1032"),
    option("slave_run_triggers", "slave-run-triggers-for-rbr=YES", "slave-run-triggers-for-rbr=LOGGING", on=MARIADB),
    option(
        "slave_run_triggers.enforce",
        "slave-run-triggers-for-rbr=ENFORCE",
        on=MARIADB,
        refuse=[("target", "triggers would run a second time on the replica", "slave_run_triggers_for_rbr")],
    ),
    option("slave_type_conversions", "slave-type-conversions=ALL_NON_LOSSY"),
    option("slave_transaction_retries", "slave-transaction-retries=0"),
    option("slave_load_tmpdir", "slave-load-tmpdir={dir}/loadtmp/\ntmpdir={dir}/tmp dir/", on=MARIADB),
    option("relay_log_space_limit", "relay-log-space-limit=65536", on=MARIADB),
    option("relay_log_purge", "relay-log-purge=OFF\nrelay-log-recovery=OFF", "relay-log-recovery=ON\nsync-relay-log=1"),
    option(
        "replicate_rewrite_db",
        "replicate-rewrite-db=lab->lab2",
        refuse=[("target", "the rows go to another database", "replicate_rewrite_db")],
    ),
    option("replicate_do_db", "replicate-do-db=lab", only="lab", alone=True),
    option("replicate_wild_do", "replicate-wild-do-table=%.%"),
    option("replicate_ignore", "replicate-wild-ignore-table=not\\_there.%\nreplicate-ignore-db=neither_there"),
    option(
        "replicate_same_server_id",
        "replicate-same-server-id=1\nskip-log-slave-updates",
        on="m",
        overruled=("log_slave_updates",),
        refuse=[("target", "it would apply its own transactions", "replicate_same_server_id")],
    ),
    option(
        "replica_checkpoint",
        "replica-checkpoint-group=512\nreplica-checkpoint-period=1\nreplica-pending-jobs-size-max=16M",
        on=MYSQL,
    ),
    # Galera's, of which a server that is no member of a cluster may have many.
    option(
        "wsrep",
        "wsrep-cluster-name=lab\nwsrep-node-name=db1\nwsrep-slave-threads=4\nwsrep-sst-method=mariabackup\nwsrep-on=OFF",
        "wsrep-retry-autocommit=4\nwsrep-sync-wait=7\nwsrep-log-conflicts=ON\nwsrep-gtid-mode=ON\nwsrep-gtid-domain-id=9",
        on=MARIADB,
    ),
    option(
        "wsrep_on",
        "wsrep-on=ON",
        on=MARIADB,
        alone=True,
        refuse=[("target", "a cluster would replace the restored data", ("wsrep_on", "cluster"))],
    ),
    option(
        "wsrep_cluster_address",
        "wsrep-cluster-address=gcomm://\nwsrep-on=OFF",
        on=MARIADB,
        alone=True,
        refuse=[("target", "a cluster would replace the restored data", "wsrep_cluster_address")],
    ),
    option("galera", GALERA, on="m", sides="s", alone=True),
    option(
        "galera.target",
        GALERA,
        on="m",
        sides="t",
        alone=True,
        refuse=[("target", "a cluster would replace the restored data", ("wsrep_cluster_address", "wsrep_on"))],
    ),
    # InnoDB and the other engines.
    option(
        "innodb_page_size",
        "innodb-page-size=4k",
        "innodb-page-size=64k",
        init=True,
        refuse=[("differ", "the copy's pages have the source's size", "innodb_page_size")],
    ),
    option(
        "innodb_data_file_path",
        "innodb-data-file-path=ibdata1:12M;ibdata2:12M:autoextend",
        init=True,
        refuse=[("differ", "the copy has the source's files", "innodb_data_file_path")],
    ),
    option("innodb_data_home_dir", "innodb-data-home-dir={dir}/ibhome/", init=True, on=MARIADB),
    option("innodb_log_group_home_dir", "innodb-log-group-home-dir={dir}/redo/", init=True),
    option("innodb_undo", "innodb-undo-directory={dir}/undo/\ninnodb-undo-tablespaces=3", init=True, on=MARIADB),
    option("innodb_undo.mysql", "innodb-undo-directory={dir}/undo/", init=True, on=MYSQL),
    option("innodb_temp", "innodb-temp-data-file-path=own_tmp:12M:autoextend", init=True),
    option("innodb_doublewrite", "innodb-doublewrite=OFF"),
    option("innodb_doublewrite_dir", "innodb-doublewrite-dir={dir}/dblwr/", on=MYSQL),
    option("innodb_log_size", "innodb-log-file-size=4M", "innodb-log-file-size=64M", on=MARIADB),
    option("innodb_redo_log_capacity", "innodb-redo-log-capacity=8M", on=MYSQL),
    option(
        "innodb_flush",
        "innodb-flush-method=O_DIRECT\ninnodb-flush-log-at-trx-commit=1",
        "innodb-flush-method=fsync\ninnodb-flush-log-at-trx-commit=0",
    ),
    option("innodb_file_per_table", "innodb-file-per-table=OFF"),
    option("innodb_strict_mode", "innodb-strict-mode=OFF\ninnodb-default-row-format=COMPACT"),
    option(
        "innodb_checksum_algorithm",
        "innodb-checksum-algorithm=strict_full_crc32",
        "innodb-checksum-algorithm=crc32",
        on=MARIADB,
    ),
    option("innodb_fast_shutdown", "innodb-fast-shutdown=2", "innodb-fast-shutdown=0"),
    option(
        "innodb_force_recovery",
        "innodb-force-recovery=1",
        on=MARIADB,
        refuse=[("any", "it is for a broken server: writes may be refused", "innodb_force_recovery")],
    ),
    option(
        "innodb_read_only",
        "innodb-read-only=ON",
        on=MYSQL,
        refuse=[("any", "nothing can be written there", ("innodb_read_only", "read-only"))],
        alone=True,
    ),
    option(
        "innodb_buffer_pool",
        "innodb-buffer-pool-size=8M\ninnodb-buffer-pool-dump-at-shutdown=OFF\ninnodb-buffer-pool-load-at-startup=OFF",
    ),
    option("innodb_force_primary_key", "innodb-force-primary-key=ON", on=MARIADB),
    option("sql_require_primary_key", "sql-require-primary-key=ON", "sql-generate-invisible-primary-key=ON", on=MYSQL),
    option("innodb_snapshot_isolation", "innodb-snapshot-isolation=ON", on=MARIADB),
    option("innodb_read_only_compressed", "innodb-read-only-compressed=ON", on=MARIADB),
    option("innodb_native_aio", "innodb-use-native-aio=0\ninnodb-open-files=20"),
    option("aria_log_dir_path", "aria-log-dir-path={dir}/aria/", init=True, on=MARIADB),
    option("aria_log_purge", "aria-log-file-size=8M\naria-checkpoint-interval=0", on=MARIADB),
    option("default_storage_engine", "default-storage-engine=MyISAM", "default-storage-engine=Aria", on=MARIADB),
    option("enforce_storage_engine", "enforce-storage-engine=InnoDB\ndefault-tmp-storage-engine=MEMORY", on=MARIADB),
    option("disabled_storage_engines", "disabled-storage-engines=MyISAM,FEDERATED,MEMORY", on=MYSQL),
    option("delay_key_write", "delay-key-write=ALL\nmyisam-recover-options=FORCE,BACKUP\nconcurrent-insert=NEVER"),
    option(
        "memory_tables",
        Value(
            sql="SET sql_log_bin=0; CREATE TABLE lab.mem (id INT PRIMARY KEY, n INT) ENGINE=MEMORY; INSERT INTO lab.mem VALUES (1, 1), (2, 2)"
        ),
        sides="s",
        hook="change_memory",
        alone=True,
        refuse=[("source", "a copy has no rows of such tables", "memory")],
    ),
    option("binlog_gtid_index", "binlog-gtid-index=OFF", on="n"),
    option(
        "persisted",
        Value(sql="SET PERSIST max_connect_errors=55; SET PERSIST_ONLY server_id=99; SET PERSIST event_scheduler=OFF"),
        on=MYSQL,
        overruled=("server_id",),
        alone=True,
    ),
    option(
        "persisted.read_only", Value(sql="SET PERSIST read_only=ON"), on=MYSQL, overruled=("read_only",), alone=True
    ),
]


def known(engine):
    """The options that servers of this row have."""
    letter = {"mariadb": "m", "mariadb-11.8": "n", "mysql-clone": "y"}[engine]
    return [o for o in OPTIONS if letter in o.on]
