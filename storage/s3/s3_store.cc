#include "storage/s3/s3_store.h"

#include <openssl/evp.h>

#include <algorithm>
#include <charconv>

#include "base/text.h"
#include "storage/http/http_errors.h"
#include "storage/s3/sigv4.h"
#include "storage/s3/xml.h"
#include "storage/url.h"
#include "stream/digest.h"

namespace guestagent {
namespace {

constexpr std::uint64_t kMaxListing = 16 << 20;
constexpr const char* kListed = "1000";

int hex_digit(char c) {
  return c <= '9' ? c - '0' : c - 'a' + 10;
}

std::string base64_of_hex(std::string_view hex) {
  std::vector<unsigned char> bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes.push_back(static_cast<unsigned char>(hex_digit(hex[i]) * 16 + hex_digit(hex[i + 1])));
  std::string out((bytes.size() + 2) / 3 * 4 + 1, '\0');
  out.resize(static_cast<std::size_t>(EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                                      bytes.data(), static_cast<int>(bytes.size()))));
  return out;
}

// The MD5 that an ETag is, or "": parts and some encryptions have other ETags.
std::string md5_of(const HttpResponse& response) {
  std::string_view etag = response.header("etag").value_or("");
  if (etag.size() == 34 && etag.front() == '"' && etag.back() == '"') etag = etag.substr(1, 32);
  const bool hex = etag.size() == 32 && std::ranges::all_of(etag, [](char c) {
                     return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
                   });
  const auto encryption = response.header("x-amz-server-side-encryption").value_or("");
  const bool plain = (encryption.empty() || encryption == "AES256") &&
                     !response.header("x-amz-server-side-encryption-customer-algorithm");
  return hex && plain ? std::string(etag) : std::string();
}

std::string error_code(const HttpResponse& response) {
  const auto xml = parse_xml(response.body.text());
  return xml ? xml->child_text("Code") : std::string();
}

class S3Store : public ObjectStore {
 public:
  S3Store(const S3Settings& settings, const HttpTimeouts& timeouts, const Url& endpoint,
          std::string_view bucket, std::string_view prefix, Clock& clock)
      : credentials_{settings.access_key, secret_from_file(settings.secret_key_file), settings.region},
        root_(endpoint),
        bucket_(bucket),
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
    check_object_name(name);
    const std::string md5 = md5_hex(body);
    const HttpHeaders headers = {{"Content-MD5", base64_of_hex(md5)},
                                 {"Content-Type", "application/octet-stream"}};
    Exchange exchange =
        send("put " + std::string(name), "PUT", path_of(name), {}, stop, 1 << 20, headers, &body);
    if (exchange.response.status == 404 && error_code(exchange.response) == "NoSuchBucket") {
      make_bucket(stop);
      exchange = send("put " + std::string(name), "PUT", path_of(name), {}, stop, 1 << 20, headers, &body);
      if (exchange.response.status == 404)
        throw answer_error(exchange.request, Code::unavailable, "answered 404 although the bucket exists",
                           "404");
    }
    if (exchange.response.status != 200) throw error(exchange);
    if (!exchange.response.header("etag"))
      throw answer_error(exchange.request, Code::data_loss, "stored it without saying its ETag", "no ETag");
    const std::string told = md5_of(exchange.response);
    if (!told.empty() && told != md5)
      throw answer_error(exchange.request, Code::data_loss, "stored something else: its ETag differs",
                         "wrong ETag");
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
    const auto length = exchange.response.length();
    if (!length)
      throw answer_error(exchange.request, Code::unavailable, "its answer has no Content-Length", "garbage");
    if (*length != exchange.response.body.size())
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
    if (response.status != 200) throw error(exchange);
    const auto length = response.length();
    if (!length)
      throw answer_error(exchange.request, Code::unavailable, "its answer has no Content-Length", "garbage");
    return ObjectInfo{std::string(name), *length,
                      parse_http_date(response.header("last-modified").value_or("")).value_or(WallTime())};
  }

  void list(std::string_view prefix, const std::function<void(const ObjectInfo&)>& each,
            std::stop_token stop) override {
    std::string after;
    for (bool more = true; more;) {
      std::vector<std::pair<std::string, std::string>> query = {
          {"list-type", "2"}, {"max-keys", kListed}, {"prefix", below_ + std::string(prefix)}};
      if (!after.empty()) query.emplace_back("start-after", after);
      const Exchange exchange =
          send("list " + std::string(prefix), "GET", bucket_path_, query, stop, kMaxListing);
      if (exchange.response.status == 404) return;
      if (exchange.response.status != 200) throw error(exchange);
      std::vector<ObjectInfo> page;
      try {
        const auto xml = parse_xml(exchange.response.body.text());
        if (!xml || xml->name != "ListBucketResult")
          throw Error(Code::unavailable, "its listing is no ListBucketResult");
        page = read_page(*xml);
        for (const ObjectInfo& info : page) {
          if (info.name <= after) throw Error(Code::unavailable, "its listing is not in order");
          after = info.name;
        }
        more = xml->child_text("IsTruncated") == "true" && !page.empty();
      } catch (const Error& e) {
        throw answer_error(exchange.request, Code::unavailable, e.what(), "garbage");
      }
      for (ObjectInfo& info : page) {
        if (!info.name.starts_with(below_)) continue;
        info.name.erase(0, below_.size());
        if (valid_object_name(info.name)) each(info);
      }
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

  Exchange send(std::string what, std::string method, const std::string& path,
                std::vector<std::pair<std::string, std::string>> query, std::stop_token stop,
                std::uint64_t max_answer = 1 << 20, const HttpHeaders& headers = {},
                const Buffer* body = nullptr) {
    S3Request plain{.method = method,
                    .host = origin_.substr(origin_.find("://") + 3),
                    .path = path,
                    .query = std::move(query),
                    .payload_sha256 = {}};
    if (body == nullptr)
      plain.payload_sha256 = sha256_hex(Bytes());
    else
      plain.payload_sha256 = encrypted_ ? "UNSIGNED-PAYLOAD" : sha256_hex(*body);
    const std::string query_text = canonical_query(plain);
    Exchange out;
    out.request = {.what = std::move(what),
                   .method = std::move(method),
                   .url = origin_ + path + (query_text.empty() ? "" : "?" + query_text)};
    out.request.headers = sign_s3(plain, credentials_, clock_.now());
    out.request.headers.insert(out.request.headers.end(), headers.begin(), headers.end());
    out.request.body = body;
    out.request.max_answer = max_answer;
    out.response = http_.send(out.request, std::move(stop));
    return out;
  }

  // S3 says more in the code of its answer than in the status.
  StoreError error(const Exchange& exchange) const {
    const std::string code = error_code(exchange.response);
    if (code == "BadDigest" || code == "XAmzContentSHA256Mismatch" || code == "IncompleteBody") {
      return answer_error(exchange.request, Code::data_loss, "what arrived is not what was sent: " + code,
                          code);
    }
    if (code == "RequestTimeout")
      return answer_error(exchange.request, Code::unavailable, "answered RequestTimeout", "408");
    if (code == "RequestTimeTooSkewed") {
      return StoreError(
          Code::permission_denied,
          exchange.request.what + ": " + server_of(exchange.request.url) + ": this host's clock is wrong",
          "set the clock: S3 refuses signatures of another time", false, std::nullopt, "403");
    }
    const StoreError plain = status_error(exchange.request, exchange.response, clock_);
    if (code.empty()) return plain;
    return StoreError(plain.code(), std::string(plain.what()) + ": " + printable(code), plain.hint(),
                      plain.retryable(), plain.retry_after(), plain.brief());
  }

  void make_bucket(std::stop_token stop) {
    const bool usual = credentials_.region == "us-east-1" || credentials_.region.empty();
    const Buffer body =
        Buffer::from(usual ? ""
                           : "<CreateBucketConfiguration><LocationConstraint>" + credentials_.region +
                                 "</LocationConstraint></CreateBucketConfiguration>");
    const Exchange exchange =
        send("make the bucket " + bucket_, "PUT", bucket_path_, {}, stop, 1 << 20, {}, &body);
    if (exchange.response.status == 200) return;
    const std::string code = error_code(exchange.response);
    if (code != "BucketAlreadyOwnedByYou") throw error(exchange);
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

  const S3Credentials credentials_;
  Url root_;  // with the bucket and the prefix
  const std::string bucket_;
  const bool encrypted_;
  HttpClient http_;
  Clock& clock_;
  std::string origin_, bucket_path_;  // "/bucket", encoded; "/" where the bucket is in the host's name
  std::string below_;                 // "prefix/", or nothing
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
