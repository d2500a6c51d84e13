#include "storage/swift/settings.h"

#include "config/checks.h"
#include "storage/http/tls_settings.h"

namespace guestagent {
namespace {

void check_swift(YamlReader& in, const SwiftSettings& swift, bool selected) {
  check_url(in, "auth_url", swift.auth_url);
  check_url(in, "storage_url", swift.storage_url);
  if (!selected) return;
  const std::string when = "for storage.swift.auth " + swift.auth;
  if (swift.auth == "token") {
    in.require("storage_url", when);
    in.require("token_file", when);
    return;
  }
  // The contract's own words: "auth_url (line 14): required".
  in.require("auth_url");
  const bool by_credential =
      swift.auth == "v3" && (in.has("application_credential_id") || in.has("application_credential_secret_file"));
  if (by_credential) {
    in.require("application_credential_id", "with application_credential_secret_file");
    in.require("application_credential_secret_file", "with application_credential_id");
    return;
  }
  in.require("user", when + (swift.auth == "v3" ? " (or an application credential)" : ""));
  in.require("key_file", when + (swift.auth == "v3" ? " (or an application credential)" : ""));
  if (swift.auth == "v3") in.require("project", when + " (or an application credential)");
}

}  // namespace

void read_swift_settings(YamlReader& in, OwnSettings& own, bool selected) {
  SwiftSettings& out = own.of<SwiftSettings>();
  in.choice("auth", out.auth, {"v1", "v3", "token"});
  in.text("auth_url", out.auth_url);
  in.text("user", out.user);
  in.text("user_domain", out.user_domain);
  in.path("key_file", out.key_file);
  in.text("project", out.project);
  in.text("project_domain", out.project_domain);
  in.text("application_credential_id", out.application_credential_id);
  in.path("application_credential_secret_file", out.application_credential_secret_file);
  in.text("region", out.region);
  in.choice("interface", out.interface, {"public", "internal", "admin"});
  in.text("storage_url", out.storage_url);
  in.path("token_file", out.token_file);
  in.text("storage_policy", out.storage_policy);
  Millis delete_after{0};
  in.duration("delete_after", delete_after);
  if (delete_after.count() % 1000 != 0) in.mistake("delete_after", "must be whole seconds");
  out.delete_after_s = static_cast<std::uint64_t>(delete_after.count()) / 1000;
  in.boolean("large_object", out.large_object);
  read_store_tls(in, out.tls);
  check_swift(in, out, selected);
}

StoreNeeds describe_swift_settings(const OwnSettings& own) {
  const auto swift = own.get<SwiftSettings>();
  StoreNeeds out;
  constexpr std::string_view kSection = "storage.swift";
  add_store_file(out, kSection, "key_file", swift.key_file, true);
  add_store_file(out, kSection, "application_credential_secret_file", swift.application_credential_secret_file, true);
  add_store_file(out, kSection, "token_file", swift.token_file, true);
  describe_store_tls(kSection, swift.tls, out);
  return out;
}

}  // namespace guestagent
