// The section storage.s3.
#pragma once

#include <string>

#include "config/settings.h"
#include "config/store_section.h"

namespace guestagent {

struct S3Settings {
  std::string endpoint, region = "us-east-1";
  std::string access_key;
  fs::path access_key_file;  // instead of access_key
  fs::path secret_key_file;
  fs::path session_token_file;  // of keys that are good for a while; empty: none
  bool path_style = true;
  TlsClientSettings tls;
  bool operator==(const S3Settings&) const = default;
};

// As StoreSection has them.
void read_s3_settings(YamlReader& in, OwnSettings& out, bool selected);
StoreNeeds describe_s3_settings(const OwnSettings& own);

}  // namespace guestagent
