#include "base/json.h"
#include "storage/http/http_errors.h"
#include "storage/swift/swift_auth.h"

namespace guestagent {
namespace {

constexpr std::uint64_t kMaxCatalog = 4 << 20;  // a catalog of a large cloud

// "…/v3/auth/tokens", whether auth_url names the version or not.
std::string tokens_url(std::string url) {
  while (url.ends_with('/')) url.pop_back();
  if (url.ends_with("/auth/tokens")) return url;
  return url + (url.ends_with("/v3") ? "/auth/tokens" : "/v3/auth/tokens");
}

class AuthV3 : public SwiftAuth {
 public:
  AuthV3(const SwiftSettings& settings, Clock& clock)
      : settings_(settings),
        by_application_(!settings.application_credential_id.empty()),
        secret_(by_application_ ? settings.application_credential_secret_file.string() : settings.key_file.string()),
        clock_(clock) {}

  SwiftLogin login(StoreHttp& http, std::stop_token stop) override {
    const Buffer body = Buffer::from(question(secret_.fresh()));
    HttpRequest request{.what = "log in to Keystone", .method = "POST", .url = tokens_url(settings_.auth_url)};
    request.headers = {{"Content-Type", "application/json"}, {"Accept", "application/json"}};
    request.body = &body;
    request.max_answer = kMaxCatalog;
    const HttpResponse response = http.send(request, stop);
    if (!response.ok()) throw login_error(request, response, clock_);
    const auto token = response.header("x-subject-token");
    if (!token || token->empty())
      throw answer_error(request, Code::unavailable, "its answer has no X-Subject-Token", "garbage");
    return read_answer(request, response.body.text(), Secret(std::string(*token)));
  }

 private:
  std::string question(const Secret& secret) const {
    JsonWriter json;
    json.begin_object().key("auth").begin_object().key("identity").begin_object();
    json.key("methods").begin_array().value(by_application_ ? "application_credential" : "password").end_array();
    if (by_application_) {
      json.key("application_credential").begin_object().member("id", settings_.application_credential_id);
      json.member("secret", secret.reveal()).end_object().end_object();
    } else {
      json.key("password").begin_object().key("user").begin_object().member("name", settings_.user);
      json.key("domain").begin_object().member("name", settings_.user_domain).end_object();
      json.member("password", secret.reveal()).end_object().end_object().end_object();
      json.key("scope").begin_object().key("project").begin_object().member("name", settings_.project);
      json.key("domain").begin_object().member("name", settings_.project_domain).end_object().end_object().end_object();
    }
    return json.end_object().end_object().text();
  }

  SwiftLogin read_answer(const HttpRequest& request, const std::string& text, Secret token) const {
    try {
      const JsonDocument document = parse_json(text, "Keystone's answer");
      const JsonReader answer = JsonReader(document, "answer").object("token");
      SwiftLogin login{std::move(token), {}, std::nullopt};
      const auto expires = answer.opt_string("expires_at");
      const auto issued = answer.opt_string("issued_at");
      if (expires && issued) {
        login.life = std::max(std::chrono::floor<Seconds>(parse_time(*expires) - parse_time(*issued)), Seconds(1));
      }
      login.storage_url = chosen_storage_url(settings_.storage_url, request,
                                             settings_.storage_url.empty() ? endpoint(request, answer) : "");
      return login;
    } catch (const StoreError&) {
      throw;
    } catch (const Error& e) {
      throw answer_error(request, Code::unavailable, e.what(), "garbage");
    }
  }

  // Keystone has fractions of a second: "2026-01-31T23:59:59.000000Z".
  static WallTime parse_time(const std::string& text) {
    return parse_utc(text.substr(0, std::min<std::size_t>(text.size(), 19)) + "Z");
  }

  std::string endpoint(const HttpRequest& request, const JsonReader& token) const {
    const JsonValue* catalog = token.array("catalog");
    for (rapidjson::SizeType i = 0; catalog != nullptr && i < catalog->Size(); ++i) {
      const JsonReader service((*catalog)[i], "answer.token.catalog");
      if (service.opt_string("type") != "object-store") continue;
      const JsonValue* endpoints = service.array("endpoints");
      for (rapidjson::SizeType k = 0; endpoints != nullptr && k < endpoints->Size(); ++k) {
        const JsonReader one((*endpoints)[k], "answer.token.catalog.endpoints");
        auto region = one.opt_string("region_id");
        if (!region) region = one.opt_string("region");
        if (one.opt_string("interface") == settings_.interface &&
            (settings_.region.empty() || region == settings_.region))
          return one.string("url");
      }
    }
    const std::string where = settings_.region.empty() ? "" : " in region \"" + settings_.region + "\"";
    throw StoreError(Code::failed_precondition,
                     request.what + ": the catalog has no object-store endpoint of interface \"" + settings_.interface +
                         "\"" + where,
                     "check storage.swift.region and interface, or set storage.swift.storage_url", false, std::nullopt,
                     "no endpoint");
  }

  const SwiftSettings settings_;
  const bool by_application_;
  RereadSecret secret_;
  Clock& clock_;
};

}  // namespace

std::unique_ptr<SwiftAuth> make_swift_auth_v3(const SwiftSettings& settings, Clock& clock) {
  return std::make_unique<AuthV3>(settings, clock);
}

}  // namespace guestagent
