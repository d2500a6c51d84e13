#include "fake_swift.h"

#include "base/json.h"
#include "net/url.h"
#include "storage/swift/settings.h"
#include "stream/digest.h"

namespace guestagent {
namespace {

constexpr const char* kContainer = "/v1/AUTH_test/c";
constexpr const char* kRoot = "/v1/AUTH_test/c/p/";

std::string md5(const std::string& text) {
  return md5_hex(Buffer::from(text));
}

std::string header(const PeerRequest& request, const std::string& name) {
  const auto it = request.headers.find(name);
  return it == request.headers.end() ? "" : it->second;
}

std::string parameter(const PeerRequest& request, const std::string& name) {
  const std::string query = "&" + request.query();
  const auto at = query.find("&" + name + "=");
  if (at == std::string::npos) return "";
  const auto from = at + name.size() + 2;
  return percent_decode(query.substr(from, query.find('&', from) - from)).value_or("");
}

}  // namespace

FakeSwift::FakeSwift()
    : files_(fs::temp_directory_path(), "guestagent-fake"),
      key_(kFakeKey),
      peer_([this](const PeerRequest& request) { return answer(request); }) {
  write_file_atomic(key_file(), kFakeKey, 0600);
}

void FakeSwift::set_key(const std::string& key) {
  const std::lock_guard lock(mutex_);
  key_ = key;
}

StorageSettings FakeSwift::settings(const std::string& auth) {
  StorageSettings s;
  s.store = "swift";
  s.container = "c";
  s.prefix = "p";
  SwiftSettings& swift = s.own.of<SwiftSettings>();
  swift.auth = auth;
  swift.auth_url = peer_.url() + (auth == "v3" ? "" : "/auth/v1.0");
  swift.user = "test:tester";
  swift.project = "test";
  swift.region = "One";
  swift.key_file = key_file();
  s.retry = {.tries = 4, .first_delay = Millis(500), .max_delay = Millis(30000)};
  s.timeouts = {.connect = Millis(5000), .stall = Millis(400)};
  return s;
}

std::optional<std::string> FakeSwift::object(const std::string& name) {
  const std::lock_guard lock(mutex_);
  const auto it = objects_.find(kRoot + name);
  if (it == objects_.end()) return std::nullopt;
  return it->second.body;
}

void FakeSwift::put_object(const std::string& name, const std::string& body) {
  const std::lock_guard lock(mutex_);
  container_ = true;
  objects_[kRoot + name] = {body, md5(body)};
}

void FakeSwift::remove_object(const std::string& name) {
  const std::lock_guard lock(mutex_);
  objects_.erase(kRoot + name);
}

std::size_t FakeSwift::objects() {
  const std::lock_guard lock(mutex_);
  return objects_.size();
}

void FakeSwift::expire_tokens() {
  const std::lock_guard lock(mutex_);
  tokens_.clear();
}

unsigned FakeSwift::logins() const {
  const std::lock_guard lock(mutex_);
  return logins_;
}

void FakeSwift::set_storage_url(std::string url) {
  const std::lock_guard lock(mutex_);
  storage_url_ = std::move(url);
}

void FakeSwift::forget_container() {
  const std::lock_guard lock(mutex_);
  container_ = false;
}

void FakeSwift::set_large_objects(bool on, unsigned most_segments) {
  const std::lock_guard lock(mutex_);
  large_objects_ = on;
  most_segments_ = most_segments;
}

std::string FakeSwift::key() const {
  return kFakeKey;
}

PeerAnswer FakeSwift::answer(const PeerRequest& request) {
  const std::lock_guard lock(mutex_);
  const std::string path = percent_decode(request.path()).value_or("");
  if (path == "/auth/v1.0" || path == "/v3/auth/tokens") return login(request);
  if (path == "/info") {
    if (!large_objects_) return {.status = 200, .body = R"({"swift": {"version": "2.30.1"}})"};
    return {.status = 200, .body = R"({"slo": {"max_manifest_segments": )" + std::to_string(most_segments_) + "}}"};
  }
  if (!tokens_.contains(header(request, "x-auth-token"))) return {.status = 401, .body = "Unauthorized"};
  if (path == kContainer) return on_container(request);
  if (!container_ || !path.starts_with(std::string(kContainer) + "/")) return {.status = 404};
  return on_object(request, path);
}

PeerAnswer FakeSwift::login(const PeerRequest& request) {
  const bool v3 = request.method == "POST";
  const bool good =
      v3 ? request.body.find('"' + key_ + '"') != std::string::npos : header(request, "x-auth-key") == key_;
  if (!good) return {.status = 401};
  const std::string token = "token-" + std::to_string(++logins_);
  tokens_.insert(token);
  const std::string url = storage_url_.empty() ? peer_.url() + "/v1/AUTH_test" : storage_url_;
  if (!v3) return {.status = 200, .headers = {{"X-Auth-Token", token}, {"X-Storage-Url", url}}};
  const WallTime issued{std::chrono::hours(500000)};
  std::string expires = format_utc(issued + Seconds(token_life_));
  expires.insert(expires.size() - 1, ".000000");
  return {.status = 201,
          .headers = {{"X-Subject-Token", token}},
          .body = R"({"token": {"issued_at": ")" + format_utc(issued) + R"(", "expires_at": ")" + expires +
                  R"(", "catalog": [{"type": "compute", "endpoints": []}, {"type": "object-store", "endpoints": [)" +
                  R"({"interface": "public", "region_id": "Two", "url": "http://127.0.0.1:9/"},)" +
                  R"({"interface": "public", "region_id": "One", "url": ")" + url + R"("}]}]}})"};
}

PeerAnswer FakeSwift::on_container(const PeerRequest& request) {
  if (request.method == "PUT") {
    container_ = true;
    return {.status = 201};
  }
  if (!container_) return {.status = 404};
  const std::string prefix = parameter(request, "prefix"), marker = parameter(request, "marker");
  JsonWriter json;
  json.begin_array();
  std::size_t count = 0;
  for (const auto& [path, object] : objects_) {
    const std::string name = path.substr(std::string(kContainer).size() + 1);
    if (!name.starts_with(prefix) || name <= marker || count == page_) continue;
    ++count;
    json.begin_object().member("name", name).member("bytes", object.body.size());
    json.member("last_modified", "2026-01-31T23:59:59.123456").member("hash", object.etag).end_object();
  }
  return {.status = 200, .body = json.end_array().text()};
}

PeerAnswer FakeSwift::on_object(const PeerRequest& request, const std::string& path) {
  if (request.method == "PUT") {
    if (request.query().find("multipart-manifest=put") != std::string::npos && large_objects_)
      return put_large_object(request, path);
    const std::string digest = md5(request.body);
    if (knows_conditions_ && header(request, "if-none-match") == "*" && objects_.contains(path)) return {.status = 412};
    const std::string told = header(request, "etag");
    if (!told.empty() && told != digest) return {.status = 422};
    objects_[path] = {request.body, digest};
    return {.status = 201, .headers = {{"Etag", digest}}};
  }
  const auto it = objects_.find(path);
  if (it == objects_.end()) return {.status = 404, .body = "<html><h1>Not Found</h1></html>"};
  if (request.method == "DELETE") {
    objects_.erase(it);
    return {.status = 204};
  }
  PeerAnswer out{.status = 200, .body = it->second.body};
  out.headers = {{"Last-Modified", "Sat, 31 Jan 2026 23:59:59 GMT"},
                 {"Etag", it->second.large ? '"' + it->second.etag + '"' : it->second.etag}};
  if (it->second.large) out.headers.emplace_back("X-Static-Large-Object", "True");
  if (request.method == "HEAD") out.headers.emplace_back("Content-Length", std::to_string(out.body.size()));
  return out;
}

PeerAnswer FakeSwift::put_large_object(const PeerRequest& request, const std::string& path) {
  const JsonDocument list = parse_json(request.body, "manifest");
  std::string whole, digests, missing;
  if (list.Size() > most_segments_) return {.status = 413};
  for (const JsonValue& value : list.GetArray()) {
    const JsonReader part(value, "part");
    const auto it = objects_.find("/v1/AUTH_test" + part.string("path"));
    if (it == objects_.end() || it->second.body.size() != part.uint("size_bytes")) {
      missing += (missing.empty() ? "" : ",") + ("[\"" + part.string("path")) +
                 (it == objects_.end() ? R"(","404 Not Found"])" : R"(","Size Mismatch"])");
      continue;
    }
    whole += it->second.body;
    digests += it->second.etag;
  }
  const std::string status = missing.empty() ? "201 Created" : "400 Bad Request";
  if (missing.empty()) objects_[path] = {whole, md5(digests), true};
  return {.status = 202,
          .body = "   {\"Response Status\": \"" + status + R"(", "Response Body": "", "Errors": [)" + missing + "]}"};
}

}  // namespace guestagent
