// What must hold between the settings, beyond the type and range of each. For settings.cc.
#pragma once

#include "config/settings.h"
#include "config/yaml.h"

namespace guestagent {

void check_agent(YamlReader& in, const AgentSettings& agent);
void check_listen(YamlReader& in, const TlsListenSettings& listen);
void check_snapshot(YamlReader& in, const SnapshotSettings& snapshot);
void check_encryption(YamlReader& in, const EncryptionSettings& encryption);
void check_storage(YamlReader& in, const StorageSettings& storage);
// `selected`: this store is the configured one, so what it cannot do without is required.
void check_swift(YamlReader& in, const SwiftSettings& swift, bool selected);
void check_s3(YamlReader& in, const S3Settings& s3, bool selected);
void check_retry(YamlReader& in, const RetrySettings& retry);
void check_mysql(YamlReader& in, const MysqlSettings& mysql);
void check_server(YamlReader& in, const ServerSettings& server);
// Nothing of the agent's may lie in the database's directory, where a switch of the data would take it away.
// `in` is the whole file.
void check_places(YamlReader& in, const Settings& settings);

}  // namespace guestagent
