#include "storage/http/http_errors.h"
#include "storage/swift/swift_auth.h"

namespace guestagent {
namespace {

class AuthV1 : public SwiftAuth {
 public:
  AuthV1(const SwiftSettings& settings, Clock& clock)
      : settings_(settings), key_(settings.key_file.string()), clock_(clock) {}

  SwiftLogin login(StoreHttp& http, std::stop_token stop) override {
    HttpRequest request{.what = "log in to Swift", .method = "GET", .url = settings_.auth_url};
    request.headers = {{"X-Auth-User", settings_.user}, {"X-Auth-Key", key_.fresh().reveal()}};
    request.max_answer = 64 << 10;
    const HttpResponse response = http.send(request, stop);
    if (!response.ok()) throw login_error(request, response, clock_);
    const auto token = response.header("x-auth-token");
    if (!token || token->empty())
      throw answer_error(request, Code::unavailable, "its answer has no X-Auth-Token", "garbage");
    const std::string url =
        chosen_storage_url(settings_.storage_url, request, response.header("x-storage-url").value_or(""));
    return {Secret(std::string(*token)), url, std::nullopt};
  }

 private:
  const SwiftSettings settings_;
  RereadSecret key_;
  Clock& clock_;
};

}  // namespace

std::unique_ptr<SwiftAuth> make_swift_auth_v1(const SwiftSettings& settings, Clock& clock) {
  return std::make_unique<AuthV1>(settings, clock);
}

}  // namespace guestagent
