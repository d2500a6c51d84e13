#include "storage/s3/s3_store.h"

#include <openssl/evp.h>

#include <algorithm>
#include <atomic>
#include <charconv>

#include "base/text.h"
#include "net/url.h"
#include "storage/http/etag.h"
#include "storage/http/http_errors.h"
#include "storage/http/object_size.h"
#include "storage/listed_pages.h"
#include "storage/s3/s3_errors.h"
#include "storage/s3/s3_keys.h"
#include "storage/s3/sigv4.h"
#include "storage/s3/xml.h"
#include "stream/digest.h"

namespace guestagent {
namespace {

constexpr std::uint64_t kMaxListing = 16 << 20;
constexpr const char* kListed = "1000";
// Pages without a name in a row: a bucket with versions may have some, where only marks of what was deleted are left.
constexpr unsigned kMostEmptyPages = 10000;

int hex_digit(char c) {
  return c <= '9' ? c - '0' : c - 'a' + 10;
}

std::string base64_of_hex(std::string_view hex) {
  std::vector<unsigned char> bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes.push_back(static_cast<unsigned char>(hex_digit(hex[i]) * 16 + hex_digit(hex[i + 1])));
  std::string out((bytes.size() + 2) / 3 * 4 + 1, '\0');
  out.resize(static_cast<std::size_t>(
      EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()), bytes.data(), static_cast<int>(bytes.size()))));
  return out;
}

// The MD5 that an ETag is, or "": parts and some encryptions have other ETags.
std::string md5_of(const HttpResponse& response) {
  const auto encryption = response.header("x-amz-server-side-encryption").value_or("");
  const bool plain = (encryption.empty() || encryption == "AES256") &&
                     !response.header("x-amz-server-side-encryption-customer-algorithm");
  return plain ? etag_md5(response).value_or("") : std::string();
}

std::string error_code(const HttpResponse& response) {
  return read_s3_refusal(response).code;
}

class S3Store : public ObjectStore {
 public:
  S3Store(const S3Settings& settings, const HttpTimeouts& timeouts, const Url& endpoint, std::string_view bucket,
          std::string_view prefix, Clock& clock)
      : keys_(settings),
        root_(endpoint),
        bucket_(bucket),
        region_(settings.region),
        encrypted_(endpoint.scheme == "https"),
        http_(timeouts, settings.tls),
        clock_(clock) {
    if (settings.path_style)
      root_.path.emplace_back(bucket);
    else
      root_.host = bucket_ + "." + root_.host;
    origin_ = root_.origin();
    bucket_path_ = "/" + percent_encode(join_path(root_.path), true);
    const auto below = split_path(prefix);
    for (const auto& part : below) below_ += part + "/";
    root_.path.insert(root_.path.end(), below.begin(), below.end());
  }

  void put(std::string_view name, const Buffer& body, std::stop_token stop) override {
    store(name, body, md5_hex(body), false, stop);
  }

  NewObject put_new(std::string_view name, const Buffer& body, std::stop_token stop) override {
    const std::string md5 = md5_hex(body);
    if (knows_condition_ && store(name, body, md5, true, stop)) return {true, {}};
    if (!knows_condition_ && !stat(name, stop)) return {store(name, body, md5, false, stop), {}};
    return {holds(name, body, md5, stop), {}};
  }

  // Amazon's is sure since 2024; others do not know the condition, and do not say so.
  bool promises_new() const override { return false; }

  // False when `only_new` and something is there, or the store refuses to be asked (then knows_condition_ is false).
  bool store(std::string_view name, const Buffer& body, const std::string& md5, bool only_new,
             const std::stop_token& stop) {
    check_object_name(name);
    HttpHeaders headers = {{"Content-MD5", base64_of_hex(md5)}, {"Content-Type", "application/octet-stream"}};
    if (only_new) headers.emplace_back("If-None-Match", "*");
    Exchange exchange = send("put " + std::string(name), "PUT", path_of(name), {}, stop, 1 << 20, headers, &body);
    if (exchange.response.status == 404 && error_code(exchange.response) == "NoSuchBucket") {
      make_bucket(stop);
      exchange = send("put " + std::string(name), "PUT", path_of(name), {}, stop, 1 << 20, headers, &body);
      if (exchange.response.status == 404)
        throw answer_error(exchange.request, Code::unavailable, "answered 404 although the bucket exists", "404");
    }
    if (only_new && exchange.response.status == 412) return false;
    if (only_new && exchange.response.status == 501) {
      knows_condition_ = false;
      return false;
    }
    if (exchange.response.status != 200) throw error(exchange);
    if (!exchange.response.header("etag"))
      throw answer_error(exchange.request, Code::data_loss, "stored it without saying its ETag", "no ETag");
    const std::string told = md5_of(exchange.response);
    if (!told.empty() && told != md5)
      throw answer_error(exchange.request, Code::data_loss, "stored something else: its ETag differs", "wrong ETag");
    return true;
  }

  // Whether what is there is byte for byte `body`.
  bool holds(std::string_view name, const Buffer& body, const std::string& md5, const std::stop_token& stop) {
    const Exchange head = send("put " + std::string(name), "HEAD", path_of(name), {}, stop);
    if (head.response.status == 404)
      throw answer_error(head.request, Code::unavailable, "answered that it is there, and then that it is not",
                         "412, 404");
    if (head.response.status != 200) throw error(head);
    if (head.response.length() != std::optional<std::uint64_t>(body.size())) return false;
    const std::string told = md5_of(head.response);
    // The ETag of an encrypted object says nothing of its bytes.
    return told.empty() ? md5_hex(fetch(name, body.size(), false, stop)) == md5 : told == md5;
  }

  Buffer get(std::string_view name, std::uint64_t max_size, std::stop_token stop) override {
    return fetch(name, max_size, true, stop);
  }

  Buffer get_unverified(std::string_view name, std::uint64_t max_size, std::stop_token stop) override {
    return fetch(name, max_size, false, stop);
  }

  Buffer fetch(std::string_view name, std::uint64_t max_size, bool verify, const std::stop_token& stop) {
    check_object_name(name);
    Exchange exchange = send("get " + std::string(name), "GET", path_of(name), {}, stop, max_size);
    if (exchange.response.status != 200) throw error(exchange);
    const std::uint64_t came = exchange.response.body.size();
    if (exchange.response.length().value_or(came) != came)
      throw answer_error(exchange.request, Code::unavailable, "the answer ended too early", "short body");
    if (!verify) return std::move(exchange.response.body);
    const std::string md5 = md5_of(exchange.response);
    if (!md5.empty() && md5_hex(exchange.response.body) != md5) {
      throw answer_error(exchange.request, Code::data_loss, "what came does not fit its ETag", "wrong ETag");
    }
    return std::move(exchange.response.body);
  }

  std::optional<ObjectInfo> stat(std::string_view name, std::stop_token stop) override {
    check_object_name(name);
    const Exchange exchange = send("stat " + std::string(name), "HEAD", path_of(name), {}, stop);
    const HttpResponse& response = exchange.response;
    if (response.status == 404) return std::nullopt;
    if (response.status != 200) throw refused_head(exchange, stop);
    auto length = response.length();
    if (!length) {
      const HttpRequest plain = size_request(exchange.request);
      const Exchange told = send(plain.what, "GET", path_of(name), {}, stop, plain.max_answer, plain.headers);
      length = size_told(told.request, told.response, clock_);
      if (!length) return std::nullopt;
    }
    return ObjectInfo{std::string(name), *length,
                      parse_http_date(response.header("last-modified").value_or("")).value_or(WallTime())};
  }

  void list(std::string_view prefix, const std::function<void(const ObjectInfo&)>& each,
            std::stop_token stop) override {
    ListedPages pages(below_, prefix, each);
    std::string token;
    unsigned empty = 0;
    for (bool more = true; more;) {
      std::vector<std::pair<std::string, std::string>> query = {
          {"list-type", "2"}, {"max-keys", kListed}, {"prefix", below_ + std::string(prefix)}};
      if (!token.empty())
        query.emplace_back("continuation-token", token);
      else if (!pages.last().empty())
        query.emplace_back("start-after", pages.last());
      const Exchange exchange =
          send(prefix.empty() ? "list" : "list " + std::string(prefix), "GET", bucket_path_, query, stop, kMaxListing);
      // No bucket, no objects; another 404 is of somebody who does not know.
      if (exchange.response.status == 404 && pages.last().empty() && error_code(exchange.response) == "NoSuchBucket")
        return;
      if (exchange.response.status == 404)
        throw answer_error(exchange.request, Code::unavailable, "answered 404 to a listing", "404");
      if (exchange.response.status != 200) throw error(exchange);
      std::vector<ObjectInfo> page;
      try {
        const auto xml = parse_xml(exchange.response.body.text());
        if (!xml || xml->name != "ListBucketResult")
          throw Error(Code::unavailable, "its listing is no ListBucketResult");
        page = read_page(*xml);
        pages.check(page);
        empty = page.empty() ? empty + 1 : 0;
        std::string next = xml->child_text("NextContinuationToken");
        more = is_truncated(*xml).value_or(!page.empty() || !next.empty());
        if (more && page.empty() && next.empty())
          throw Error(Code::unavailable, "its listing says that there is more, but not where");
        if (more && page.empty() && (next == token || empty > kMostEmptyPages))
          throw Error(Code::unavailable, "its listing goes on without an end");
        token = std::move(next);
      } catch (const Error& e) {
        throw answer_error(exchange.request, Code::unavailable, e.what(), "garbage");
      }
      pages.tell(std::move(page));
    }
  }

  bool remove(std::string_view name, std::stop_token stop) override {
    if (!stat(name, stop)) return false;
    const Exchange exchange = send("remove " + std::string(name), "DELETE", path_of(name), {}, stop);
    // Gone meanwhile.
    if (exchange.response.status == 404) return true;
    if (exchange.response.status != 204 && exchange.response.status != 200) throw error(exchange);
    return true;
  }

  bool join(std::string_view name, const std::vector<ObjectInfo>&, std::stop_token) override {
    check_object_name(name);
    return false;
  }

  std::string href(std::string_view name) const override {
    check_object_name(name);
    return origin_ + path_of(name);
  }

  std::optional<std::string> name_of(std::string_view href) const override {
    const auto url = parse_url(href);
    if (!url) return std::nullopt;
    const auto below = path_below(root_, *url);
    if (!below) return std::nullopt;
    std::string name = join_path(*below);
    return valid_object_name(name) ? std::optional(std::move(name)) : std::nullopt;
  }

 private:
  struct Exchange {
    HttpRequest request;
    HttpResponse response;
  };

  std::string path_of(std::string_view name) const {
    return (bucket_path_ == "/" ? "" : bucket_path_) + "/" + percent_encode(below_ + std::string(name), true);
  }

  Exchange send(const std::string& what, const std::string& method, const std::string& path,
                const std::vector<std::pair<std::string, std::string>>& query, const std::stop_token& stop,
                std::uint64_t max_answer = 1 << 20, const HttpHeaders& headers = {}, const Buffer* body = nullptr) {
    const auto used = keys_.current();
    Exchange exchange = send_with(*used, what, method, path, query, stop, max_answer, headers, body);
    // What a key that is not the right one any more is answered with; a HEAD does not say more than the status.
    const int status = exchange.response.status;
    if (status != 400 && status != 401 && status != 403) return exchange;
    const auto fresh = keys_.renewed(used);
    if (fresh == used) return exchange;
    return send_with(*fresh, what, method, path, query, stop, max_answer, headers, body);
  }

  Exchange send_with(const S3Credentials& credentials, const std::string& what, const std::string& method,
                     const std::string& path, const std::vector<std::pair<std::string, std::string>>& query,
                     const std::stop_token& stop, std::uint64_t max_answer, const HttpHeaders& headers,
                     const Buffer* body) {
    S3Request plain{.method = method,
                    .host = origin_.substr(origin_.find("://") + 3),
                    .path = path,
                    .query = query,
                    .payload_sha256 = {}};
    if (body == nullptr)
      plain.payload_sha256 = sha256_hex(Bytes());
    else
      plain.payload_sha256 = encrypted_ ? "UNSIGNED-PAYLOAD" : sha256_hex(*body);
    const std::string query_text = canonical_query(plain);
    Exchange out;
    out.request = {
        .what = what, .method = method, .url = origin_ + path + (query_text.empty() ? "" : "?" + query_text)};
    out.request.headers = sign_s3(plain, credentials, clock_.now());
    out.request.headers.insert(out.request.headers.end(), headers.begin(), headers.end());
    out.request.body = body;
    out.request.max_answer = max_answer;
    out.response = http_.send(out.request, stop);
    return out;
  }

  StoreError error(const Exchange& exchange) const {
    return s3_error(exchange.request, exchange.response, bucket_, region_, clock_);
  }

  // The answer to a HEAD has no body, so that it does not say why it is a refusal: the same is asked in a way that is
  // answered with one.
  StoreError refused_head(const Exchange& exchange, const std::stop_token& stop) {
    const StoreError plain = error(exchange);
    const int status = exchange.response.status;
    if (status < 300 || status >= 500 || plain.retryable()) return plain;
    const Exchange asked =
        send(exchange.request.what, "GET", bucket_path_, {{"list-type", "2"}, {"max-keys", "1"}}, stop);
    return asked.response.status == 200 || asked.response.status == 404 ? plain : error(asked);
  }

  void make_bucket(std::stop_token stop) {
    const bool usual = region_ == "us-east-1" || region_.empty();
    const Buffer body = Buffer::from(usual ? ""
                                           : "<CreateBucketConfiguration><LocationConstraint>" + region_ +
                                                 "</LocationConstraint></CreateBucketConfiguration>");
    const Exchange exchange = send("make the bucket " + bucket_, "PUT", bucket_path_, {}, stop, 1 << 20, {}, &body);
    if (exchange.response.status == 200) return;
    const std::string code = error_code(exchange.response);
    if (code != "BucketAlreadyOwnedByYou") throw error(exchange);
  }

  // nullopt where it does not say: then only a page without names is the end.
  static std::optional<bool> is_truncated(const XmlElement& xml) {
    const std::string text = xml.child_text("IsTruncated");
    if (text == "true" || text == "1") return true;
    if (text == "false" || text == "0") return false;
    return std::nullopt;
  }

  static std::vector<ObjectInfo> read_page(const XmlElement& xml) {
    std::vector<ObjectInfo> page;
    for (const XmlElement& entry : xml.children) {
      if (entry.name != "Contents") continue;
      ObjectInfo info{entry.child_text("Key"), 0, WallTime()};
      const std::string size = entry.child_text("Size"), modified = entry.child_text("LastModified");
      const auto [end, failed] = std::from_chars(size.data(), size.data() + size.size(), info.size);
      if (info.name.empty() || failed != std::errc() || end != size.data() + size.size())
        throw Error(Code::unavailable, "its listing has a broken entry");
      if (!modified.empty()) info.modified = parse_utc(modified.substr(0, 19) + "Z");
      page.push_back(std::move(info));
    }
    return page;
  }

  S3Keys keys_;
  Url root_;  // with the bucket and the prefix
  const std::string bucket_, region_;
  const bool encrypted_;
  StoreHttp http_;
  Clock& clock_;
  std::atomic<bool> knows_condition_{true};  // until it answers 501 to one
  std::string origin_, bucket_path_;         // "/bucket", encoded; "/" where the bucket is in the host's name
  std::string below_;                        // "prefix/", or nothing
};

}  // namespace

std::unique_ptr<ObjectStore> make_s3_store(const S3Settings& settings, const HttpTimeouts& timeouts,
                                           std::string_view bucket, std::string_view prefix, Clock& clock) {
  const auto endpoint = parse_url(settings.endpoint);
  if (!endpoint)
    throw Error(Code::invalid_argument,
                "storage.s3.endpoint: \"" + printable(settings.endpoint) + "\": no http or https address");
  return std::make_unique<S3Store>(settings, timeouts, *endpoint, bucket, prefix, clock);
}

}  // namespace guestagent
