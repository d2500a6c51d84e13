#include "storage/s3/settings.h"

#include "config/checks.h"
#include "storage/http/tls_settings.h"

namespace guestagent {
namespace {

void check_s3(YamlReader& in, const S3Settings& s3, bool selected) {
  check_url(in, "endpoint", s3.endpoint);
  if (!selected) return;
  for (const std::string_view key : {"endpoint", "secret_key_file"}) in.require(key);
  if (in.has("access_key") && in.has("access_key_file"))
    in.mistake("access_key_file", "must not be set together with access_key");
  else if (!in.has("access_key_file"))
    in.require("access_key");
}

}  // namespace

void read_s3_settings(YamlReader& in, OwnSettings& own, bool selected) {
  S3Settings& out = own.of<S3Settings>();
  in.text("endpoint", out.endpoint);
  in.text("region", out.region);
  in.text("access_key", out.access_key);
  in.path("access_key_file", out.access_key_file);
  in.path("secret_key_file", out.secret_key_file);
  in.path("session_token_file", out.session_token_file);
  in.boolean("path_style", out.path_style);
  read_store_tls(in, out.tls);
  check_s3(in, out, selected);
}

StoreNeeds describe_s3_settings(const OwnSettings& own) {
  const auto s3 = own.get<S3Settings>();
  StoreNeeds out;
  constexpr std::string_view kSection = "storage.s3";
  add_store_file(out, kSection, "access_key_file", s3.access_key_file, true);
  add_store_file(out, kSection, "secret_key_file", s3.secret_key_file, true);
  add_store_file(out, kSection, "session_token_file", s3.session_token_file, true);
  describe_store_tls(kSection, s3.tls, out);
  return out;
}

}  // namespace guestagent
