#include "storage/swift/swift_store.h"

#include <atomic>

#include "base/json.h"
#include "base/log.h"
#include "net/url.h"
#include "storage/http/etag.h"
#include "storage/http/http_errors.h"
#include "storage/http/object_size.h"
#include "storage/listed_pages.h"
#include "storage/swift/large_object.h"
#include "storage/swift/swift_session.h"
#include "stream/digest.h"

namespace guestagent {
namespace {

constexpr unsigned kPage = 1000;
constexpr std::uint64_t kMaxPage = 16 << 20;

HttpHeaders expiry_headers(const SwiftSettings& settings) {
  if (settings.delete_after_s == 0) return {};
  return {{"X-Delete-After", std::to_string(settings.delete_after_s)}};
}

class SwiftStore : public ObjectStore {
 public:
  SwiftStore(const SwiftSettings& settings, const HttpTimeouts& timeouts, std::string_view container,
             std::string_view prefix, Clock& clock)
      : settings_(settings),
        session_(settings, timeouts, clock),
        root_path_(split_path(prefix)),
        below_(root_path_.empty() ? "" : join_path(root_path_) + "/"),
        container_path_("/" + percent_encode(container, false)),
        large_objects_(session_, container_path_ + "/" + percent_encode(below_, true),
                       "/" + std::string(container) + "/" + below_, expiry_headers(settings)) {
    root_path_.insert(root_path_.begin(), std::string(container));
  }

  void put(std::string_view name, const Buffer& body, std::stop_token stop) override {
    store(name, body, md5_hex(body), false, stop);
  }

  NewObject put_new(std::string_view name, const Buffer& body, std::stop_token stop) override {
    const std::string md5 = md5_hex(body);
    const bool stored = store(name, body, md5, true, stop);
    return {stored || holds(name, body, md5, stop), md5};
  }

  // It looks whether something is there before it takes the body, and does not look again: two at the same instant
  // are both told 201. Old Ceph gateways do not know the condition at all.
  bool promises_new() const override { return false; }

  // False when `only_new` and something is there.
  bool store(std::string_view name, const Buffer& body, const std::string& md5, bool only_new,
             const std::stop_token& stop) {
    HttpRequest request = about("put", "PUT", name);
    request.headers = expiry_headers(settings_);
    if (only_new) request.headers.emplace_back("If-None-Match", "*");
    request.headers.emplace_back("ETag", md5);
    request.headers.emplace_back("Content-Type", "application/octet-stream");
    request.body = &body;
    HttpResponse response = session_.send(request, path_of(name), stop);
    if (response.status == 404) {
      make_container(stop);
      response = session_.send(request, path_of(name), stop);
      // Another proxy may remember for a while that there is no such container.
      if (response.status == 404)
        throw answer_error(request, Code::unavailable, "answered 404 although the container exists", "404");
    }
    if (only_new && response.status == 412) return false;
    if (response.status != 201) throw status_error(request, response, session_.clock());
    if (etag_md5(response) != md5) {
      const bool told = response.header("etag").has_value();
      throw answer_error(request, Code::data_loss,
                         told ? "stored something else: its ETag differs" : "stored it without saying its ETag",
                         told ? "wrong ETag" : "no ETag");
    }
    return true;
  }

  // Whether what is there is byte for byte `body`.
  bool holds(std::string_view name, const Buffer& body, const std::string& md5, const std::stop_token& stop) {
    HttpRequest request = about("put", "HEAD", name);
    const HttpResponse response = session_.send(request, path_of(name), stop);
    if (response.status == 404)
      throw answer_error(request, Code::unavailable, "answered that it is there, and then that it is not", "412, 404");
    if (!response.ok()) throw status_error(request, response, session_.clock());
    if (response.length() != std::optional<std::uint64_t>(body.size())) return false;
    std::string_view etag = response.header("etag").value_or("");
    if (etag.size() == 34 && etag.front() == '"' && etag.back() == '"') etag = etag.substr(1, 32);
    return etag == md5 && !response.header("x-static-large-object");
  }

  Buffer get(std::string_view name, std::uint64_t max_size, std::stop_token stop) override {
    return fetch(name, max_size, true, stop);
  }

  Buffer get_unverified(std::string_view name, std::uint64_t max_size, std::stop_token stop) override {
    return fetch(name, max_size, false, stop);
  }

  std::optional<ObjectInfo> stat(std::string_view name, std::stop_token stop) override {
    HttpRequest request = about("stat", "HEAD", name);
    const HttpResponse response = session_.send(request, path_of(name), stop);
    if (response.status == 404) return std::nullopt;
    if (response.status != 200 && response.status != 204) throw status_error(request, response, session_.clock());
    std::optional<std::uint64_t> length = response.length();
    if (!length) {
      HttpRequest by_range = size_request(request);
      const HttpResponse told = session_.send(by_range, path_of(name), stop);
      length = size_told(by_range, told, session_.clock());
      if (!length) return std::nullopt;
    }
    return ObjectInfo{std::string(name), *length,
                      parse_http_date(response.header("last-modified").value_or("")).value_or(WallTime())};
  }

  void list(std::string_view prefix, const std::function<void(const ObjectInfo&)>& each,
            std::stop_token stop) override {
    const std::string base =
        container_path_ + "?format=json&prefix=" + percent_encode(below_ + std::string(prefix), false);
    std::string limit = "&limit=" + std::to_string(kPage);
    ListedPages pages(below_, prefix, each);
    bool missing = false;
    while (true) {
      HttpRequest request{.what = prefix.empty() ? "list" : "list " + std::string(prefix), .method = "GET"};
      request.headers = {{"Accept", "application/json"}};
      request.max_answer = kMaxPage;
      const HttpResponse response = session_.send(
          request, base + limit + (pages.last().empty() ? "" : "&marker=" + percent_encode(pages.last(), false)), stop);
      if (response.status == 412 && !limit.empty()) {  // a cluster that allows fewer at once: then its own number
        limit.clear();
        continue;
      }
      if (response.status == 404) {
        // No container, no objects. But Swift says so, too, while the servers that have it do not answer: an empty
        // listing would pass for a snapshot that is gone.
        if (!pages.last().empty())
          throw answer_error(request, Code::unavailable, "answered 404 in the middle of its listing", "404");
        if (std::exchange(missing, true)) return;
        continue;
      }
      if (response.status == 204) return;
      if (response.status != 200) throw status_error(request, response, session_.clock());
      std::vector<ObjectInfo> page;
      try {
        page = read_page(response.body.text());
        // A page that is shorter than it may be is no end: only an empty one is.
        if (page.empty()) return;
        pages.check(page);
      } catch (const Error& e) {
        throw answer_error(request, Code::unavailable, e.what(), "garbage");
      }
      pages.tell(std::move(page));
    }
  }

  bool remove(std::string_view name, std::stop_token stop) override {
    HttpRequest request = about("remove", "DELETE", name);
    request.once = true;  // else the second would find nothing, and say so
    const HttpResponse response = session_.send(request, path_of(name), stop);
    if (response.status == 404) return false;
    if (response.status != 204 && response.status != 200) throw status_error(request, response, session_.clock());
    return true;
  }

  bool join(std::string_view name, const std::vector<ObjectInfo>& parts, std::stop_token stop) override {
    check_object_name(name);
    return settings_.large_object && large_objects_.join(name, parts, stop);
  }

  std::string href(std::string_view name) const override {
    check_object_name(name);
    return session_.storage_url({}) + path_of(name);
  }

  std::optional<std::string> name_of(std::string_view href) const override {
    const auto url = parse_url(href);
    if (!url) return std::nullopt;
    auto root = parse_url(session_.storage_url({}));
    if (!root) return std::nullopt;
    root->path.insert(root->path.end(), root_path_.begin(), root_path_.end());
    const auto below = path_below(*root, *url);
    if (!below) return std::nullopt;
    std::string name = join_path(*below);
    return valid_object_name(name) ? std::optional(std::move(name)) : std::nullopt;
  }

 private:
  Buffer fetch(std::string_view name, std::uint64_t max_size, bool verify, const std::stop_token& stop) {
    HttpRequest request = about("get", "GET", name);
    request.max_answer = max_size;
    HttpResponse response = session_.send(request, path_of(name), stop);
    if (response.status != 200) throw status_error(request, response, session_.clock());
    if (response.length().value_or(response.body.size()) != response.body.size())
      throw answer_error(request, Code::unavailable, "the answer ended too early", "short body");
    // The ETag of a large object is no digest of its bytes.
    if (!verify || response.header("x-static-large-object") || response.header("x-object-manifest"))
      return std::move(response.body);
    const auto md5 = etag_md5(response);
    if (!md5) {
      if (!unverifiable_.exchange(true))
        log_warning("the store tells no MD5 of what it sends, so that only the snapshot's own digests are checked",
                    {{"object", std::string(name)}, {"server", server_of(request.url)}});
    } else if (md5_hex(response.body) != *md5) {
      throw answer_error(request, Code::data_loss, "what came does not fit its ETag", "wrong ETag");
    }
    return std::move(response.body);
  }

  // Refuses what is no name.
  static HttpRequest about(std::string_view verb, std::string_view method, std::string_view name) {
    check_object_name(name);
    return {.what = std::string(verb) + " " + std::string(name), .method = std::string(method)};
  }

  std::string path_of(std::string_view name) const {
    return container_path_ + "/" + percent_encode(below_ + std::string(name), true);
  }

  void make_container(std::stop_token stop) {
    HttpRequest request{.what = "make the container" + container_path_, .method = "PUT"};
    if (!settings_.storage_policy.empty()) request.headers.emplace_back("X-Storage-Policy", settings_.storage_policy);
    const HttpResponse response = session_.send(request, container_path_, stop);
    if (!response.ok()) throw status_error(request, response, session_.clock());
  }

  static std::vector<ObjectInfo> read_page(const std::string& text) {
    const JsonDocument document = parse_json(text, "the listing");
    if (!document.IsArray()) throw Error(Code::unavailable, "its listing is no array");
    std::vector<ObjectInfo> page;
    for (const JsonValue& value : document.GetArray()) {
      const JsonReader entry(value, "listing");
      const auto modified = entry.opt_string("last_modified");
      page.push_back({entry.string("name"), entry.uint("bytes"),
                      modified ? parse_utc(modified->substr(0, 19) + "Z") : WallTime()});
    }
    return page;
  }

  const SwiftSettings settings_;
  mutable SwiftSession session_;
  std::vector<std::string> root_path_;  // container, then the prefix's components
  const std::string below_;             // "prefix/", or nothing
  const std::string container_path_;    // "/container", encoded
  LargeObjects large_objects_;
  std::atomic<bool> unverifiable_{false};  // an answer without an MD5 was warned of
};

}  // namespace

std::unique_ptr<ObjectStore> make_swift_store(const SwiftSettings& settings, const HttpTimeouts& timeouts,
                                              std::string_view container, std::string_view prefix, Clock& clock) {
  return std::make_unique<SwiftStore>(settings, timeouts, container, prefix, clock);
}

}  // namespace guestagent
