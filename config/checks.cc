#include "config/checks.h"

#include <algorithm>
#include <cctype>
#include <set>

#include "base/host_name.h"
#include "base/id.h"
#include "config/units.h"

namespace guestagent {
namespace {

// What sun_path of a socket address holds, without its final zero.
constexpr std::size_t kMaxSocketPath = 107;

bool only(std::string_view text, std::string_view extra) {
  return std::all_of(text.begin(), text.end(), [&](char c) {
    return (std::isalnum(static_cast<unsigned char>(c)) != 0 && static_cast<unsigned char>(c) < 0x80) ||
           extra.find(c) != std::string_view::npos;
  });
}

bool inside(const fs::path& path, const fs::path& dir) {
  const auto [end, rest] = std::mismatch(dir.begin(), dir.end(), path.begin(), path.end());
  return end == dir.end();
}

void check_socket(YamlReader& in, std::string_view key, const fs::path& socket) {
  if (socket.string().size() > kMaxSocketPath) {
    in.mistake(key, "must not be longer than " + std::to_string(kMaxSocketPath) + " bytes, the limit of socket paths");
  }
}

}  // namespace

void check_agent(YamlReader& in, const AgentSettings& agent) {
  check_socket(in, "socket", agent.socket);
}

void check_listen(YamlReader& in, const TlsListenSettings& listen) {
  if (listen.address.empty()) return;
  const auto address = HostPort::parse(listen.address);
  if (!address || !address->port) in.mistake("address", "must be ADDRESS:PORT, such as 0.0.0.0:8443");
  for (const std::string_view key : {"certificate", "key", "client_ca"})
    in.require(key, "when agent.listen.address is set");
}

void check_snapshot(YamlReader& in, const SnapshotSettings& snapshot) {
  const std::uint64_t least = 4 * snapshot.segment_bytes + (std::uint64_t{32} << 20);
  if (snapshot.memory_limit < least) {
    in.mistake("memory_limit", "must be at least " + format_size(least) + ": four segments (snapshot.segment_size is " +
                                   format_size(snapshot.segment_bytes) + ") and 32MiB; " +
                                   "raise it or make the segments smaller");
  }
}

void check_encryption(YamlReader& in, const EncryptionSettings& encryption) {
  std::set<std::string> ids;
  for (const auto& key : encryption.keys) {
    if (key.id.empty()) continue;
    if (!valid_id(key.id)) in.mistake("keys", "an id must be 1 to 64 of A-Z, a-z, 0-9, \".\", \"_\" and \"-\"");
    if (!ids.insert(key.id).second) in.mistake("keys", "the id \"" + key.id + "\" stands there twice");
  }
  if (!encryption.write_key.empty() && !ids.contains(encryption.write_key)) {
    in.mistake("write_key", "must be the id of one of snapshot.encryption.keys");
  }
}

void check_storage(YamlReader& in, const StorageSettings& storage) {
  if (storage.container.empty() || storage.container.size() > 63 || !only(storage.container, "._-") ||
      storage.container.starts_with('.')) {
    in.mistake("container", "must be 1 to 63 of A-Z, a-z, 0-9, \".\", \"_\" and \"-\", not beginning with a dot");
  }
  const fs::path prefix = storage.prefix;
  const bool plain = std::none_of(prefix.begin(), prefix.end(),
                                  [](const fs::path& part) { return part.empty() || part == "." || part == ".."; });
  if (storage.prefix.empty() || storage.prefix.size() > 256 || !only(storage.prefix, "._-/") || prefix.is_absolute() ||
      !plain || storage.prefix.find("//") != std::string::npos) {
    in.mistake("prefix",
               "must be a relative name of A-Z, a-z, 0-9, \".\", \"_\", \"-\" and \"/\", without empty parts "
               "and \"..\"");
  }
}

void check_url(YamlReader& in, std::string_view key, std::string_view url) {
  if (url.empty()) return;
  const std::size_t scheme = url.starts_with("https://") ? 8 : url.starts_with("http://") ? 7 : 0;
  const std::string_view host = url.substr(scheme).substr(0, url.substr(scheme).find_first_of("/?#"));
  if (scheme == 0 || host.empty() || url.find_first_of(" \"'<>\\") != std::string_view::npos) {
    in.mistake(key, "must be an http:// or https:// address");
  } else if (host.find('@') != std::string_view::npos) {
    in.mistake(key, "must not hold a user or password; there are keys and files for them");
  } else if (url.find_first_of("?#") != std::string_view::npos) {
    in.mistake(key, "must not have a query or fragment");
  } else if (!HostPort::parse(host)) {
    in.mistake(key, "must have a host name or an address, and a port from 1 to 65535 where it has one");
  }
}

void check_retry(YamlReader& in, const RetrySettings& retry) {
  if (retry.max_delay < retry.first_delay) {
    in.mistake(in.has("max_delay") ? "max_delay" : "first_delay", "max_delay must not be shorter than first_delay");
  }
}

void check_server(YamlReader& in, const ServerSettings& server) {
  if (server.control == "systemd" && server.unit.empty())
    in.mistake("unit", "must not be empty when mysql.server.control is systemd");
  if (server.control == "commands") {
    if (server.start.empty()) in.mistake("start", "required when mysql.server.control is commands");
    if (server.stop.empty()) in.mistake("stop", "required when mysql.server.control is commands");
  }
  if (server.command.empty()) in.mistake("command", "must name the server's program: its private first start needs it");
}

void check_mysql(YamlReader& in, const MysqlSettings& mysql) {
  const std::string& address = mysql.advertised_address;
  if (!in.has("advertised_address")) {
    in.require("advertised_address");
  } else if (address.find("://") != std::string::npos || std::count(address.begin(), address.end(), ':') == 1) {
    in.mistake("advertised_address", "must be a name or an address alone; mysql.advertised_port is for the port");
  } else if (!HostName::parse(address) || address == "0.0.0.0" || address == "::") {
    in.mistake("advertised_address", "must be a name or an address that replicas can connect to");
  }
  check_socket(in, "socket", mysql.socket);
  if (in.has("client_file")) {
    for (const std::string_view key : {"user", "password_file"}) {
      if (in.has(key)) in.mistake(key, "must not be set together with client_file, which holds both");
    }
  }
  if (mysql.os_user.empty() || mysql.os_user.size() > 64 || !only(mysql.os_user, "._-$@"))
    in.mistake("os_user", "must be the name of a user of this host");
  if (mysql.replication_host.empty() || mysql.replication_host.size() > 255 ||
      !only(mysql.replication_host, ".-_:%/")) {
    in.mistake("replication_host",
               "must be the host part of an account: a name, an address, or a pattern with % and _");
  }
  if (!mysql.staging_dir.empty() &&
      (inside(mysql.staging_dir, mysql.data_dir) || inside(mysql.data_dir, mysql.staging_dir))) {
    in.mistake("staging_dir",
               "must be neither inside of mysql.data_dir nor around it: the server would take it for a database");
  }
}

void check_places(YamlReader& in, const Settings& settings, StoreSections stores) {
  const fs::path& data = settings.mysql.data_dir;
  std::vector<StoreNeeds::Place> places = {{"agent.state_dir", settings.agent.state_dir},
                                           {"snapshot.spill.dir", settings.snapshot.spill.dir},
                                           {"mysql.managed_file", settings.mysql.managed_file}};
  for (const StoreSection& store : stores) {
    if (const auto place = store.describe(settings.storage.own).place) places.push_back(*place);
  }
  for (const auto& [key, path] : places) {
    if (inside(path, data)) in.mistake_at(key, "must not be inside of mysql.data_dir, which is exchanged as a whole");
  }
}

}  // namespace guestagent
