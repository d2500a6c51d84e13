#include "config/settings.h"

#include "base/file.h"
#include "config/checks.h"
#include "config/settings_keys.h"
#include "config/yaml.h"

namespace guestagent {
namespace {

void read_listen(YamlReader& in, TlsListenSettings& out) {
  in.text("address", out.address);
  in.path("certificate", out.certificate);
  in.path("key", out.key);
  in.path("client_ca", out.client_ca);
  in.path("client_crl", out.client_crl);
  in.words("allow_names", out.allow_names);
  check_listen(in, out);
}

void read_agent(YamlReader& in, AgentSettings& out) {
  in.path("socket", out.socket);
  in.mode("socket_mode", out.socket_mode);
  in.words("allow_users", out.allow_users);
  in.words("allow_groups", out.allow_groups);
  in.path("state_dir", out.state_dir);
  in.number("job_history_days", out.job_history_days, 1, 3650);
  in.section("log", [&](YamlReader& log) {
    std::string level = "info", format = "logfmt";
    log.choice("level", level, {"debug", "info", "warning", "error"});
    log.choice("format", format, {"logfmt", "json"});
    out.log_level = log_level_from(level);
    out.log_format = format == "json" ? LogFormat::json : LogFormat::logfmt;
  });
  in.section("listen", [&](YamlReader& listen) { read_listen(listen, out.listen); });
  check_agent(in, out);
}

void read_encryption(YamlReader& in, EncryptionSettings& out) {
  in.text("write_key", out.write_key);
  in.each("keys", [&](YamlReader& item) {
    EncryptionSettings::KeyFile key;
    item.text("id", key.id);
    item.path("file", key.file);
    item.require("id");
    item.require("file");
    out.keys.push_back(std::move(key));
  });
  in.boolean("allow_plain", out.allow_plain);
  check_encryption(in, out);
}

void read_snapshot(YamlReader& in, SnapshotSettings& out) {
  in.choice("compression", out.compression, {"zstd", "lz4", "gzip", "none"});
  in.number("level", out.level, 0, 9);
  in.size("segment_size", out.segment_bytes, 1 << 20, 64 << 20);
  in.size("memory_limit", out.memory_limit);
  in.number("workers", out.workers, 0, 256);
  in.number("transfers", out.transfers, 1, 64);
  in.section("spill", [&](YamlReader& spill) {
    spill.path("dir", out.spill.dir);
    spill.size("max_size", out.spill.max_bytes);
    spill.size("keep_free", out.spill.keep_free_bytes);
  });
  in.section("throttle", [&](YamlReader& throttle) {
    throttle.rate("upload", out.throttle.upload);
    throttle.rate("download", out.throttle.download);
    throttle.rate("read", out.throttle.read);
  });
  in.section("encryption", [&](YamlReader& encryption) { read_encryption(encryption, out.encryption); });
  check_snapshot(in, out);
}

void read_storage(YamlReader& in, StorageSettings& out, StoreSections stores) {
  std::vector<std::string_view> names;
  for (const StoreSection& store : stores) names.push_back(store.name);
  in.choice("store", out.store, names);
  in.text("container", out.container);
  in.text("prefix", out.prefix);
  for (const StoreSection& store : stores) {
    in.section(store.name, [&](YamlReader& section) { store.read(section, out.own, out.store == store.name); });
  }
  in.section("retry", [&](YamlReader& retry) {
    retry.number("tries", out.retry.tries, 1, 100);
    retry.duration("first_delay", out.retry.first_delay, Millis(1));
    retry.duration("max_delay", out.retry.max_delay, Millis(1));
    check_retry(retry, out.retry);
  });
  in.section("timeouts", [&](YamlReader& timeouts) {
    timeouts.duration("connect", out.timeouts.connect, Millis(1));
    timeouts.duration("stall", out.timeouts.stall, Millis(1));
  });
  check_storage(in, out);
}

void read_server(YamlReader& in, ServerSettings& out) {
  in.choice("control", out.control, {"systemd", "commands", "process"});
  in.text("unit", out.unit);
  in.words("start", out.start);
  in.words("stop", out.stop);
  in.words("command", out.command);
  in.duration("start_timeout", out.start_timeout, Seconds(1));
  in.duration("stop_timeout", out.stop_timeout, Seconds(1));
  check_server(in, out);
}

void read_mysql(YamlReader& in, MysqlSettings& out) {
  in.text("advertised_address", out.advertised_address);
  if (const auto port = in.whole("advertised_port", 1, 65535)) out.advertised_port = static_cast<std::uint16_t>(*port);
  in.path("socket", out.socket);
  in.text("user", out.user);
  in.path("password_file", out.password_file);
  in.path("client_file", out.client_file);
  in.section("tls", [&](YamlReader& tls) {
    tls.path("ca_file", out.tls.ca_file);
    tls.path("certificate", out.tls.certificate);
    tls.path("key", out.tls.key);
    tls.boolean("verify", out.tls.verify);
    if (tls.has("certificate") != tls.has("key"))
      tls.mistake(tls.has("key") ? "certificate" : "key", "required: certificate and key go together");
  });
  in.path("defaults_file", out.defaults_file);
  in.path("managed_file", out.managed_file);
  in.path("data_dir", out.data_dir);
  in.path("staging_dir", out.staging_dir);
  in.text("os_user", out.os_user);
  in.section("server", [&](YamlReader& server) { read_server(server, out.server); });
  in.choice("backup_tool", out.backup_tool, {"auto", "mariadb-backup", "xtrabackup", "clone"});
  in.path("tools_dir", out.tools_dir);
  in.number("backup_parallel", out.backup_parallel, 1, 64);
  in.size("prepare_memory", out.prepare_memory);
  in.duration("lock_wait", out.lock_wait, Seconds(1));
  in.duration("freeze_limit", out.freeze_limit, Seconds(1));
  in.choice("require_tls", out.require_tls, {"auto", "yes", "no"});
  in.path("replication_ca_file", out.replication_ca_file);
  in.text("replication_host", out.replication_host);
  in.choice("replication", out.replication, {"gtid", "position"});
  in.boolean("allow_restart", out.allow_restart);
  in.boolean("keep_previous_data", out.keep_previous_data);
  in.duration("catch_up_timeout", out.catch_up_timeout);
  in.duration("drain_timeout", out.drain_timeout);
  in.duration("lag_limit", out.lag_limit, Seconds(1));
  in.duration("lease_limit", out.lease_limit, Seconds(1));
  check_mysql(in, out);
}

Settings read_settings(YamlReader& in, StoreSections stores) {
  Settings out;
  in.section("agent", [&](YamlReader& agent) { read_agent(agent, out.agent); });
  in.section("snapshot", [&](YamlReader& snapshot) { read_snapshot(snapshot, out.snapshot); });
  in.section("attach", [&](YamlReader& attach) {
    attach.duration("keep_partial", out.attach.keep_partial);
    attach.duration("follow_timeout", out.attach.follow_timeout);
  });
  in.section("storage", [&](YamlReader& storage) { read_storage(storage, out.storage, stores); });
  in.choice("datastore", out.datastore, {"mysql"});
  in.section("mysql", [&](YamlReader& mysql) { read_mysql(mysql, out.mysql); });
  check_places(in, out, stores);
  in.finish();
  return out;
}

}  // namespace

Settings parse_settings(std::string_view yaml, std::string_view name, StoreSections stores) {
  const YamlNode document = parse_yaml(yaml, name);
  YamlReport report(name);
  YamlReader reader(&document, "", 1, report);
  Settings settings = read_settings(reader, stores);
  report.throw_if_any();
  return settings;
}

Settings load_settings(const fs::path& file, StoreSections stores) {
  std::string text;
  try {
    text = read_trusted_file(file, kMaxYamlBytes);
  } catch (const Error& e) {
    const bool too_large = e.code() == Code::resource_exhausted;
    std::string hint = e.hint();
    if (e.code() == Code::not_found)
      hint = "install the shipped guestagent.yaml there, or name another file with --config";
    else if (too_large || e.code() == Code::invalid_argument)
      hint = "name the configuration's file with --config: a file of settings, no directory and nothing large";
    throw Error(too_large ? Code::invalid_argument : e.code(), std::string("reading the configuration: ") + e.what(),
                hint);
  }
  Settings settings = parse_settings(text, file.string(), stores);
  for (const StoreSection& store : stores) {
    if (store.name != settings.storage.store) continue;
    for (const std::string& warning : store.describe(settings.storage.own).warnings) log_warning(warning);
  }
  return settings;
}

std::vector<std::string> setting_keys(StoreSections stores) {
  const YamlNode empty{YamlNode::Kind::map, 1, {}, {}, {}};
  YamlReport report("");
  YamlReader reader(&empty, "", 1, report);
  read_settings(reader, stores);
  return report.keys();
}

}  // namespace guestagent
