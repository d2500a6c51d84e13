#include "strategies/mysql/host/host_places.h"

#include <algorithm>
#include <array>
#include <sstream>

#include "base/error.h"
#include "base/json.h"

namespace guestagent::mysql {
namespace {

constexpr std::size_t kLargestManifest = 1 << 20;

constexpr std::array<std::string_view, 24> kHostFiles = {"ssl_ca",
                                                         "ssl_cert",
                                                         "ssl_key",
                                                         "ssl_crl",
                                                         "ssl_capath",
                                                         "ssl_crlpath",
                                                         "admin_ssl_ca",
                                                         "admin_ssl_cert",
                                                         "admin_ssl_key",
                                                         "admin_ssl_crl",
                                                         "mysqlx_ssl_ca",
                                                         "mysqlx_ssl_cert",
                                                         "mysqlx_ssl_key",
                                                         "file_key_management_filename",
                                                         "file_key_management_filekey",
                                                         "hashicorp_key_management_vault_ca",
                                                         "aws_key_management_keyfile_dir",
                                                         "keyring_file_data",
                                                         "keyring_encrypted_file_data",
                                                         "keyring_vault_config",
                                                         "caching_sha2_password_private_key_path",
                                                         "caching_sha2_password_public_key_path",
                                                         "sha256_password_private_key_path",
                                                         "init_file"};

constexpr std::array<std::string_view, 5> kNeededDirs = {"tmpdir", "innodb_tmpdir", "slave_load_tmpdir",
                                                         "replica_load_tmpdir", "innodb_temp_tablespaces_dir"};
constexpr std::array<std::string_view, 6> kNeededForFiles = {"log_error", "general_log_file", "slow_query_log_file",
                                                             "pid_file",  "socket",           "log_slow_query_file"};

template <typename List>
bool among(const List& list, std::string_view name) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

// The entry of `dir` that `path` is or lies in; empty where it lies elsewhere.
std::string entry_of(const fs::path& path, const fs::path& dir) {
  std::error_code ec;
  const fs::path real = fs::weakly_canonical(path, ec);
  if (ec) return "";
  const fs::path relative = real.lexically_relative(dir);
  if (relative.empty() || relative == "." || *relative.begin() == "..") return "";
  return relative.begin()->string();
}

// A database's directory is data, whatever else somebody has put into it.
bool holds_tables(const fs::path& dir) {
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(dir, ec)) {
    const std::string extension = entry.path().extension().string();
    if (extension == ".frm" || extension == ".ibd" || extension == ".sdi" || entry.path().filename() == "db.opt")
      return true;
  }
  return false;
}

class Places {
 public:
  explicit Places(const fs::path& data_dir) : dir_(fs::canonical(data_dir)) {}

  void keep(const fs::path& path) {
    const std::string name = entry_of(path.is_absolute() ? path : dir_ / path, dir_);
    std::error_code ec;
    if (name.empty() || !fs::exists(dir_ / name, ec) || among(out_.kept, name)) return;
    if (fs::is_directory(dir_ / name, ec) && holds_tables(dir_ / name)) return;
    out_.kept.push_back(name);
  }

  void need(const fs::path& path) {
    const fs::path full = path.is_absolute() ? path : dir_ / path;
    std::error_code ec;
    if (!entry_of(full, dir_).empty() && fs::is_directory(full, ec)) out_.needed.push_back(full);
  }

  // MySQL's components: what they are in this data directory, and the files that their settings name.
  void components() {
    for (const auto& entry : fs::directory_iterator(dir_)) {
      const std::string name = entry.path().filename().string();
      if (!entry.is_regular_file()) continue;
      if (name == "mysqld.my") keep(entry.path());
      if (!name.starts_with("component_") || !name.ends_with(".cnf")) continue;
      keep(entry.path());
      try {
        const JsonDocument document = parse_json(read_file(entry.path(), kLargestManifest), entry.path().string());
        if (const auto path = JsonReader(document, name).opt_string("path"); path && !path->empty()) keep(*path);
      } catch (const Error&) {
        // Its component will say what is wrong with it.
      }
    }
  }

  HostPlaces take() { return std::move(out_); }

 private:
  const fs::path dir_;
  HostPlaces out_;
};

}  // namespace

HostPlaces host_places(const fs::path& data_dir, const std::vector<OptionLine>& options) {
  Places places(data_dir);
  places.components();
  for (const OptionLine& line : options) {
    if (line.value.empty()) continue;
    if (among(kHostFiles, line.name)) places.keep(line.value.starts_with("FILE:") ? line.value.substr(5) : line.value);
    if (among(kNeededDirs, line.name)) {
      std::istringstream list(line.value);
      for (std::string dir; std::getline(list, dir, ':');) places.need(dir);
    }
    if (among(kNeededForFiles, line.name)) places.need(fs::path(line.value).parent_path());
  }
  return places.take();
}

}  // namespace guestagent::mysql
