"""The configuration files of a Swift that is one node, one replica and one directory. See swift.Options for what can be set."""

import getpass


def write_all(swift):
    """`swift` has dir, options, ports, user, key and, for Keystone, keystone."""
    o, etc = swift.options, swift.etc
    policies = "".join(
        f"[storage-policy:{i}]\nname = {name}\n{'default = yes' if i == 0 else ''}\n"
        for i, name in enumerate(o.policies)
    )
    limits = f"max_file_size = {o.max_file_size}\n" if o.max_file_size else ""
    limits += f"container_listing_limit = {o.listing_limit}\n" if o.listing_limit else ""
    (etc / "swift.conf").write_text(
        f"[swift-hash]\nswift_hash_path_prefix = lab\nswift_hash_path_suffix = {swift.hash_suffix}\n{policies}"
        f"[swift-constraints]\nmax_header_size = 16384\n{limits}"
    )
    for kind in ("account", "container", "object"):
        (etc / f"{kind}-server.conf").write_text(_backend(swift, kind))
    (etc / "proxy-server.conf").write_text(_proxy(swift))
    if o.expirer:
        (etc / "internal-client.conf").write_text(_internal_client(swift))
        # A file whose path has the word "expirer" would be taken for the old layout, so its section is the object server's.
        with open(etc / "object-server.conf", "a") as conf:
            conf.write(
                f"[object-expirer]\ndequeue_from_legacy = true\ninterval = 1\ninternal_client_conf_path = {etc}/internal-client.conf\n"
                f"recon_cache_path = {swift.dir}/cache\n"
            )


def _common(swift):
    # The defaults (half a second to connect, 3 to 10 s for a node) give spurious 503s on a busy machine.
    return (
        f"bind_ip = 127.0.0.1\nuser = {getpass.getuser()}\nswift_dir = {swift.etc}\ndevices = {swift.dir}/node\nmount_check = false\n"
        f"workers = {swift.options.workers}\nmax_clients = 1024\nbacklog = 4096\nlog_level = INFO\ndisable_fallocate = true\n"
        f"fallocate_reserve = 0\nclient_timeout = {swift.options.client_timeout}\nconn_timeout = 5\nnode_timeout = 60\n"
    )


def _backend(swift, kind):
    recon = f"recon_cache_path = {swift.dir}/cache\nrecon_lock_path = {swift.dir}/lock\n"
    return (
        f"[DEFAULT]\nbind_port = {swift.ports[kind]}\n{_common(swift)}"
        f"[pipeline:main]\npipeline = healthcheck recon {kind}-server\n"
        f"[app:{kind}-server]\nuse = egg:swift#{kind}\nnetwork_chunk_size = {swift.options.chunk}\ndisk_chunk_size = {swift.options.chunk}\n"
        f"[filter:healthcheck]\nuse = egg:swift#healthcheck\n[filter:recon]\nuse = egg:swift#recon\n{recon}"
        f"[{kind}-updater]\ninterval = 1\nrecon_cache_path = {swift.dir}/cache\n"
    )


def _proxy(swift):
    o = swift.options
    tls = f"cert_file = {swift.dir}/tls.crt\nkey_file = {swift.dir}/tls.key\n" if o.tls else ""
    if swift.keystone:
        auth = ["authtoken", "keystoneauth"]
        s3 = ["s3api", "s3token"]
    else:
        auth = ["tempauth"]
        s3 = ["s3api"]
    pipeline = [
        "catch_errors",
        "gatekeeper",
        "healthcheck",
        "proxy-logging",
        "cache",
        "listing_formats",
        "bulk",
        "tempurl",
    ]
    pipeline += (
        (s3 if o.s3 else [])
        + auth
        + ["etag-quoter", "copy", "slo", "dlo", "versioned_writes", "symlink", "proxy-logging", "proxy-server"]
    )
    filters = {
        "catch_errors": "",
        "gatekeeper": "",
        "healthcheck": "",
        "listing_formats": "",
        "bulk": "",
        "tempurl": "",
        "copy": "",
        "symlink": "",
        "etag-quoter": "use = egg:swift#etag_quoter\nenable_by_default = false\n",
        "cache": f"use = egg:swift#memcache\nmemcache_servers = 127.0.0.1:{swift.ports['memcached']}\nmemcache_max_connections = 8\n",
        "proxy-logging": "use = egg:swift#proxy_logging\nreveal_sensitive_prefix = 0\n",
        "tempauth": f"token_life = {o.token_life}\nuser_{swift.account}_{swift.user_name} = {swift.key} .admin\n",
        # It asks for one more than it gives, to know whether there is more.
        "s3api": f"location = {swift.s3_region}\n"
        + (f"max_bucket_listing = {o.listing_limit - 1}\n" if o.listing_limit else ""),
        "s3token": (f"auth_uri = {swift.keystone.url}\n" if swift.keystone else ""),
        # Swift's own default serves one segment a second after the tenth.
        "slo": f"rate_limit_after_segment = 10\nrate_limit_segments_per_sec = 0\nmax_manifest_segments = {o.max_manifest_segments}\nyield_frequency = 1\n",
        "dlo": "rate_limit_segments_per_sec = 0\n",
        "versioned_writes": "allow_versioned_writes = true\nallow_object_versioning = true\n",
    }
    text = (
        f"[DEFAULT]\nbind_port = {swift.ports['proxy']}\n{_common(swift)}expose_info = true\n{tls}"
        f"[pipeline:main]\npipeline = {' '.join(pipeline)}\n"
        f"[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\nclient_chunk_size = {o.chunk}\nobject_chunk_size = {o.chunk}\n"
        "node_timeout = 60\nconn_timeout = 5\n"
    )
    for name in dict.fromkeys(pipeline[:-1]):
        if name in ("authtoken", "keystoneauth"):
            continue
        body = filters[name]
        text += f"[filter:{name}]\n" + ("" if body.startswith("use") else f"use = egg:swift#{name}\n") + body
    return text + (swift.keystone.middleware() if swift.keystone else "")


def _internal_client(swift):
    return (
        f"[DEFAULT]\nswift_dir = {swift.etc}\n[pipeline:main]\npipeline = catch_errors cache symlink proxy-server\n"
        "[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n"
        f"[filter:cache]\nuse = egg:swift#memcache\nmemcache_servers = 127.0.0.1:{swift.ports['memcached']}\n"
        "[filter:catch_errors]\nuse = egg:swift#catch_errors\n[filter:symlink]\nuse = egg:swift#symlink\n"
    )
