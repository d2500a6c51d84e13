#include "forwarded_swift.h"

#include <set>
#include <vector>

#include "contract/storage_servers/lab.h"
#include "net/url.h"
#include "storage/stores.h"
#include "storage/swift/settings.h"

namespace guestagent {
namespace {

constexpr const char* kContainer = "faults";
constexpr HttpTimeouts kPatient{.connect = Millis(10000), .stall = Millis(60000)};

// Of one connection, thus not to be passed on.
const std::set<std::string> kHopByHop = {"host", "content-length", "expect", "connection", "transfer-encoding"};

bool is_login(const PeerRequest& request) {
  return request.target.starts_with("/auth/") || request.target.starts_with("/v3/");
}

std::string origin_of(const std::string& url) {
  return parse_url(url).value().origin();
}

void replace_all(std::string& text, const std::string& what, const std::string& by) {
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + by.size()))
    text.replace(at, what.size(), by);
}

}  // namespace

ForwardedSwift::ForwardedSwift(const std::string& prefix)
    : prefix_(prefix),
      files_(fs::temp_directory_path(), "guestagent-forwarded"),
      http_(kPatient, {}),
      peer_([this](const PeerRequest& request) { return pass_on(request); }) {
  write_file_atomic(files_.path() / "key", lab("SWIFT_KEY"), 0600);
  direct_ = make_store(own_settings(), system_clock());
  std::vector<std::string> old;
  direct_->list("", [&](const ObjectInfo& info) { old.push_back(info.name); }, {});
  for (const std::string& name : old) direct_->remove(name, {});
}

std::string ForwardedSwift::auth() {
  return lab("SWIFT_AUTH");
}

StorageSettings ForwardedSwift::own_settings() const {
  StorageSettings s;
  s.store = "swift";
  s.container = kContainer;
  s.prefix = prefix_;
  SwiftSettings& swift = s.own.of<SwiftSettings>();
  swift.auth = auth();
  swift.auth_url = lab("SWIFT_AUTH_URL");
  swift.user = lab("SWIFT_USER");
  swift.project = "test";
  swift.region = "RegionOne";
  swift.key_file = files_.path() / "key";
  return s;
}

StorageSettings ForwardedSwift::settings(const std::string& auth) {
  if (auth != ForwardedSwift::auth())
    throw Error(Code::failed_precondition, "the lab's Swift has the login " + ForwardedSwift::auth() + ", not " + auth);
  StorageSettings s = own_settings();
  s.own.of<SwiftSettings>().auth_url = peer_.url() + (auth == "v3" ? "/v3" : "/auth/v1.0");
  s.retry = {.tries = 4, .first_delay = Millis(500), .max_delay = Millis(30000)};
  s.timeouts = {.connect = Millis(10000), .stall = Millis(30000)};
  return s;
}

std::optional<std::string> ForwardedSwift::object(const std::string& name) {
  if (!direct_->stat(name, {})) return std::nullopt;
  return direct_->get(name, std::uint64_t{64} << 20, {}).text();
}

void ForwardedSwift::put_object(const std::string& name, const std::string& body) {
  direct_->put(name, Buffer::from(body), {});
}

std::size_t ForwardedSwift::objects() {
  std::size_t count = 0;
  direct_->list("", [&](const ObjectInfo&) { ++count; }, {});
  return count;
}

void ForwardedSwift::set_storage_url(std::string url) {
  const std::lock_guard lock(mutex_);
  storage_url_ = std::move(url);
}

std::string ForwardedSwift::key() const {
  return lab("SWIFT_KEY");
}

PeerAnswer ForwardedSwift::pass_on(const PeerRequest& request) {
  const std::string real = origin_of(lab("SWIFT_STORAGE_URL"));
  const Buffer body = Buffer::from(request.body);
  HttpRequest forward{.what = "pass on", .method = request.method};
  forward.url = (is_login(request) ? origin_of(lab("SWIFT_AUTH_URL")) : real) + request.target;
  for (const auto& [name, value] : request.headers) {
    if (!kHopByHop.contains(name)) forward.headers.emplace_back(name, value);
  }
  if (request.method == "PUT" || request.method == "POST") forward.body = &body;
  forward.max_answer = std::uint64_t{64} << 20;
  HttpResponse response;
  try {
    response = http_.send(forward, {});
  } catch (const StoreError& e) {
    return {.status = 503, .headers = {}, .body = e.what()};
  }

  std::string url;
  {
    const std::lock_guard lock(mutex_);
    url = storage_url_;
  }
  PeerAnswer out{.status = response.status, .headers = {}, .body = response.body.text()};
  for (const auto& [name, value] : response.headers) {
    if (kHopByHop.contains(name) && !(name == "content-length" && request.method == "HEAD")) continue;
    out.headers.emplace_back(name, name == "x-storage-url" && !url.empty() ? url : value);
    replace_all(out.headers.back().second, real, peer_.url());
  }
  if (is_login(request)) {
    if (!url.empty()) replace_all(out.body, lab("SWIFT_STORAGE_URL"), url);
    replace_all(out.body, real, peer_.url());
  }
  return out;
}

}  // namespace guestagent
