// The section storage.swift.
#pragma once

#include <cstdint>
#include <string>

#include "config/settings.h"
#include "config/store_section.h"

namespace guestagent {

struct SwiftSettings {
  std::string auth = "v1";  // v1 | v3 | token
  std::string auth_url;
  std::string user, user_domain = "Default";
  fs::path key_file;  // the password or the v1 key
  std::string project, project_domain = "Default";
  std::string application_credential_id;
  fs::path application_credential_secret_file;
  std::string region, interface = "public";
  std::string storage_url;  // auth: token; else overrides the catalog's
  fs::path token_file;      // auth: token
  std::string storage_policy;
  std::uint64_t delete_after_s = 0;  // X-Delete-After; 0: none
  bool large_object = true;          // the static large object beside the manifest
  TlsClientSettings tls;
  bool operator==(const SwiftSettings&) const = default;
};

// As StoreSection has them.
void read_swift_settings(YamlReader& in, OwnSettings& out, bool selected);
StoreNeeds describe_swift_settings(const OwnSettings& own);

}  // namespace guestagent
