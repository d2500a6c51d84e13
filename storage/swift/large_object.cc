#include "storage/swift/large_object.h"

#include <algorithm>
#include <cstdio>

#include "base/json.h"
#include "base/text.h"
#include "net/url.h"
#include "storage/http/etag.h"
#include "storage/http/http_errors.h"
#include "stream/digest.h"

namespace guestagent {
namespace {

constexpr std::size_t kUsualSegments = 1000;  // Swift's default, where a cluster does not show its own
constexpr std::uint64_t kMaxAnswer = 4 << 20;

// What the server says of the segments it refuses: [["/container/name", "404 Not Found"], …]
StoreError refusal(const HttpRequest& request, const JsonReader& answer, const std::string& status) {
  std::string first;
  bool all_missing = true;
  const JsonValue* errors = answer.array("Errors");
  const rapidjson::SizeType count = errors == nullptr ? 0 : errors->Size();
  for (rapidjson::SizeType i = 0; i < count; ++i) {
    const JsonValue& pair = (*errors)[i];
    const bool usable = pair.IsArray() && pair.Size() == 2 && pair[0].IsString() && pair[1].IsString();
    const std::string why = usable ? pair[1].GetString() : "?";
    all_missing = all_missing && why.starts_with("404");
    if (first.empty()) first = printable(usable ? pair[0].GetString() : "?", 200) + ": " + printable(why);
  }
  const std::string code = status.substr(0, 3);
  if (count == 0) return answer_error(request, Code::unavailable, "answered " + printable(status), code);
  const std::string more = count > 1 ? " and " + std::to_string(count - 1) + " more" : "";
  // What was put a moment ago may not be seen everywhere yet.
  if (all_missing) return answer_error(request, Code::unavailable, "does not see a part: " + first + more, "404");
  return answer_error(request, Code::data_loss, "refuses a part: " + first + more, code, false);
}

}  // namespace

LargeObjects::LargeObjects(SwiftSession& session, std::string root, std::string plain_root, HttpHeaders headers)
    : session_(session), root_(std::move(root)), plain_root_(std::move(plain_root)), headers_(std::move(headers)) {}

std::size_t LargeObjects::most_segments(std::stop_token stop) {
  const std::lock_guard lock(mutex_);
  if (most_segments_) return *most_segments_;
  const std::string storage = session_.storage_url(stop);
  const auto version = storage.rfind("/v1");
  HttpRequest request{.what = "ask Swift for its limits", .method = "GET", .url = storage.substr(0, version) + "/info"};
  const HttpResponse response = session_.send_plain(request, stop);
  if (response.status >= 500 || response.status == 429) throw status_error(request, response, session_.clock());
  most_segments_ = kUsualSegments;  // a cluster may keep its limits to itself
  if (!response.ok()) return *most_segments_;
  try {
    const JsonDocument document = parse_json(response.body.text(), "the limits");
    const auto slo = JsonReader(document, "info").opt_object("slo");
    most_segments_ =
        slo ? std::min<std::uint64_t>(slo->opt_uint("max_manifest_segments").value_or(kUsualSegments), kUsualSegments)
            : 0;
  } catch (const Error& e) {
    most_segments_.reset();
    throw answer_error(request, Code::unavailable, e.what(), "garbage");
  }
  return *most_segments_;
}

bool LargeObjects::join(std::string_view name, const std::vector<ObjectInfo>& parts, std::stop_token stop) {
  std::vector<ObjectInfo> level;
  // A static large object has no empty segments.
  std::ranges::copy_if(parts, std::back_inserter(level), [](const ObjectInfo& part) { return part.size > 0; });
  if (level.empty()) return false;
  const std::size_t most = most_segments(stop);
  if (most == 0 || (most == 1 && level.size() > 1)) return false;
  for (unsigned made = 0; level.size() > most;) {
    std::vector<ObjectInfo> above;
    for (std::size_t at = 0; at < level.size(); at += most) {
      const std::size_t count = std::min(most, level.size() - at);
      char suffix[24];
      std::snprintf(suffix, sizeof suffix, ".part-%06u", ++made);
      ObjectInfo whole{std::string(name) + suffix, 0, {}};
      for (std::size_t i = at; i < at + count; ++i) whole.size += level[i].size;
      if (!put_manifest(whole.name, &level[at], count, stop)) return false;
      above.push_back(std::move(whole));
    }
    level = std::move(above);
  }
  return put_manifest(std::string(name), level.data(), level.size(), stop);
}

bool LargeObjects::put_manifest(const std::string& name, const ObjectInfo* parts, std::size_t count,
                                std::stop_token stop) {
  JsonWriter json;
  json.begin_array();
  for (const ObjectInfo* part = parts; part != parts + count; ++part) {
    json.begin_object().member("path", plain_root_ + part->name).member("size_bytes", part->size);
    // So that the store holds it against what it has; and old Ceph gateways can serve only what has one.
    if (!part->etag.empty()) json.member("etag", part->etag);
    json.end_object();
  }
  const Buffer body = Buffer::from(json.end_array().text());
  HttpRequest request{.what = "join " + name, .method = "PUT"};
  request.headers = headers_;
  request.headers.emplace_back("Accept", "application/json");
  request.headers.emplace_back("Content-Type", "application/octet-stream");
  request.body = &body;
  request.max_answer = kMaxAnswer;
  // With the heartbeat the answer is 202 and white space while the server looks at each part, then the real
  // status in JSON: no balancer between us takes the silence for death.
  request.trickles = true;
  const std::string path = root_ + percent_encode(name, true);
  const HttpResponse response = session_.send(request, path + "?multipart-manifest=put&heartbeat=on", stop);
  if (response.status == 201) {
    // A Swift without large objects has stored the list itself.
    if (etag_md5(response) != md5_hex(body)) return true;
    HttpRequest undo{.what = "remove " + name, .method = "DELETE"};
    const HttpResponse undone = session_.send(undo, path, stop);
    if (!undone.ok() && undone.status != 404) throw status_error(undo, undone, session_.clock());
    return false;
  }
  if (response.status != 200 && response.status != 202 && response.status != 400) {
    throw status_error(request, response, session_.clock());
  }
  try {
    const JsonDocument document = parse_json(response.body.text(), "the answer");
    const JsonReader answer(document, "answer");
    const std::string status = response.status == 400 ? "400 Bad Request" : answer.string("Response Status");
    if (status.starts_with("201")) return true;
    throw refusal(request, answer, status);
  } catch (const StoreError&) {
    throw;
  } catch (const Error& e) {
    if (response.status == 400) throw status_error(request, response, session_.clock());
    throw answer_error(request, Code::unavailable, e.what(), "garbage");
  }
}

}  // namespace guestagent
