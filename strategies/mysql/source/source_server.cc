#include "strategies/mysql/source/source_server.h"

#include "base/json.h"

namespace guestagent::mysql {

SourceServer describe_source(const ServerIdentity& identity, bool gtid, std::vector<std::string> enabled_events,
                             std::string tool_version) {
  SourceServer out;
  out.version = identity.version.text();
  out.version_text = identity.version_text;
  out.server_id = identity.server_id;
  out.server_uuid = identity.server_uuid;
  out.page_size = identity.page_size;
  out.lower_case_table_names = identity.lower_case_table_names;
  out.innodb_data_file_path = identity.innodb_data_file_path;
  out.undo_tablespaces = identity.undo_tablespaces;
  out.redo_bytes = identity.redo_bytes;
  out.gtid = gtid;
  out.event_scheduler = identity.event_scheduler;
  out.plugins = identity.plugins;
  out.enabled_events = std::move(enabled_events);
  out.tool_version = std::move(tool_version);
  return out;
}

void look_at_tables(SourceServer& server, ServerClient& client) {
  constexpr std::size_t kMost = 1000;
  server.keyring_component = client.keyring_component();
  server.encrypted_tables = client.encrypted_tables();
  if (server.encrypted_tables.size() > kMost) server.encrypted_tables.resize(kMost);
  server.unopenable_tables = client.unopenable_tables();
  if (server.unopenable_tables.size() > kMost) server.unopenable_tables.resize(kMost);
}

std::string write_source_server(const SourceServer& server) {
  JsonWriter out;
  const auto list = [&](std::string_view name, const std::vector<std::string>& values) {
    out.key(name).begin_array();
    for (const std::string& each : values) out.value(each);
    out.end_array();
  };
  out.begin_object();
  out.member("version", server.version);
  out.member("version_text", server.version_text);
  out.member("server_id", std::uint64_t{server.server_id});
  out.member("server_uuid", server.server_uuid);
  out.member("page_size", server.page_size);
  out.member("lower_case_table_names", server.lower_case_table_names);
  out.member("innodb_data_file_path", server.innodb_data_file_path);
  out.member("undo_tablespaces", server.undo_tablespaces);
  out.member("redo_bytes", server.redo_bytes);
  out.member("gtid", server.gtid);
  out.member("event_scheduler", server.event_scheduler);
  list("plugins", server.plugins);
  list("enabled_events", server.enabled_events);
  out.member("tool_version", server.tool_version);
  out.member("keyring_component", server.keyring_component);
  list("encrypted_tables", server.encrypted_tables);
  list("unopenable_tables", server.unopenable_tables);
  out.end_object();
  return out.text();
}

SourceServer read_source_server(std::string_view json) {
  JsonDocument document;
  try {
    document = parse_json(json, "reading what the snapshot says of its source");
  } catch (const Error& e) {
    throw Error(Code::data_loss, e.what(), "the manifest is damaged; take a new snapshot");
  }
  const JsonReader in(document, "server", Code::data_loss);
  SourceServer out;
  out.version = in.opt_string("version").value_or("");
  out.version_text = in.opt_string("version_text").value_or("");
  out.server_id = static_cast<std::uint32_t>(in.opt_uint("server_id", 0, UINT32_MAX).value_or(0));
  out.server_uuid = in.opt_string("server_uuid").value_or("");
  out.page_size = in.opt_uint("page_size").value_or(0);
  out.lower_case_table_names = static_cast<unsigned>(in.opt_uint("lower_case_table_names", 0, 2).value_or(0));
  out.innodb_data_file_path = in.opt_string("innodb_data_file_path").value_or("");
  out.undo_tablespaces = in.opt_uint("undo_tablespaces").value_or(0);
  out.redo_bytes = in.opt_uint("redo_bytes").value_or(0);
  out.gtid = in.opt_boolean("gtid").value_or(false);
  out.event_scheduler = in.opt_boolean("event_scheduler").value_or(false);
  out.plugins = in.strings("plugins");
  out.enabled_events = in.strings("enabled_events");
  out.tool_version = in.opt_string("tool_version").value_or("");
  out.keyring_component = in.opt_string("keyring_component").value_or("");
  out.encrypted_tables = in.strings("encrypted_tables");
  out.unopenable_tables = in.strings("unopenable_tables");
  return out;
}

}  // namespace guestagent::mysql
