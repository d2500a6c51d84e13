#include "storage/swift/swift_auth.h"

namespace guestagent {
namespace {

class AuthToken : public SwiftAuth {
 public:
  explicit AuthToken(const SwiftSettings& settings) : settings_(settings), token_(settings.token_file.string()) {}

  SwiftLogin login(StoreHttp&, std::stop_token) override {
    const HttpRequest configured{.what = "storage.swift.storage_url", .method = "GET", .url = settings_.storage_url};
    return {token_.fresh(), chosen_storage_url(settings_.storage_url, configured, {}), std::nullopt};
  }

 private:
  const SwiftSettings settings_;
  RereadSecret token_;
};

}  // namespace

std::unique_ptr<SwiftAuth> make_swift_auth_token(const SwiftSettings& settings) {
  return std::make_unique<AuthToken>(settings);
}

}  // namespace guestagent
