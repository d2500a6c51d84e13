// What attach must know of the source's server before it takes the copy: SourceFacts::server_json, kept in
// the manifest.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "strategies/mysql/server/server_client.h"

namespace guestagent::mysql {

struct SourceServer {
  std::string version;       // "mariadb-10.11.19"
  std::string version_text;  // the server's own spelling
  std::uint32_t server_id = 0;
  std::string server_uuid;  // empty on MariaDB
  std::uint64_t page_size = 0;
  unsigned lower_case_table_names = 0;
  std::string innodb_data_file_path;
  std::uint64_t undo_tablespaces = 0;
  std::uint64_t redo_bytes = 0;
  bool gtid = false;  // replicas may follow by GTID
  bool event_scheduler = false;
  std::vector<std::string> plugins;            // active, not built in
  std::vector<std::string> enabled_events;     // "db.event"
  std::string tool_version;                    // of the tool that took the copy
  std::string keyring_component;               // MySQL's, where one is active
  std::vector<std::string> encrypted_tables;   // "db/table"; a thousand at most
  std::vector<std::string> unopenable_tables;  // "db.table": broken already when the copy was taken; a thousand at most
};

SourceServer describe_source(const ServerIdentity& identity, bool gtid, std::vector<std::string> enabled_events,
                             std::string tool_version);
// Fills in what a look at the server's tables and keys tells: the last three of the above.
void look_at_tables(SourceServer& server, ServerClient& client);
std::string write_source_server(const SourceServer& server);
// Lenient: what is absent stays as above ("" or 0: not known). Throws Error(data_loss) for what is no JSON
// object or mistyped.
SourceServer read_source_server(std::string_view json);

}  // namespace guestagent::mysql
