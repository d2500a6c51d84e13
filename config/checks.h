// What must hold between the settings, beyond the type and range of each. For settings.cc, and check_url() for the
// stores.
#pragma once

#include "config/settings.h"
#include "config/yaml.h"

namespace guestagent {

void check_agent(YamlReader& in, const AgentSettings& agent);
void check_listen(YamlReader& in, const TlsListenSettings& listen);
void check_snapshot(YamlReader& in, const SnapshotSettings& snapshot);
void check_encryption(YamlReader& in, const EncryptionSettings& encryption);
void check_storage(YamlReader& in, const StorageSettings& storage);
void check_retry(YamlReader& in, const RetrySettings& retry);
void check_mysql(YamlReader& in, const MysqlSettings& mysql);
void check_server(YamlReader& in, const ServerSettings& server);
// An http or https address without a secret in it. The address itself is not shown: people put passwords into URLs.
void check_url(YamlReader& in, std::string_view key, std::string_view url);
// Nothing of the agent's may lie in the database's directory, where a switch of the data would take it away.
// `in` is the whole file.
void check_places(YamlReader& in, const Settings& settings, StoreSections stores);

}  // namespace guestagent
