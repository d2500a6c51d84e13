#include "storage/http/tls_settings.h"

namespace guestagent {

void read_store_tls(YamlReader& in, TlsClientSettings& out) {
  in.section("tls", [&](YamlReader& tls) {
    tls.path("ca_file", out.ca_file);
    tls.boolean("insecure", out.insecure);
  });
}

void describe_store_tls(std::string_view section, const TlsClientSettings& tls, StoreNeeds& out) {
  add_store_file(out, section, "tls.ca_file", tls.ca_file, false);
  if (tls.insecure)
    out.warnings.push_back(std::string(section) + ".tls.insecure is set: the store's certificate is not checked");
}

void add_store_file(StoreNeeds& out, std::string_view section, std::string_view key, const fs::path& path,
                    bool secret) {
  if (!path.empty()) out.files.push_back({std::string(section) + "." + std::string(key), path, secret});
}

}  // namespace guestagent
