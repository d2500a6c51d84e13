#include "storage/s3/sigv4.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <array>

#include "net/url.h"
#include "stream/digest.h"

namespace guestagent {
namespace {

using Mac = std::array<std::byte, 32>;

Mac hmac(Bytes key, std::string_view data) {
  Mac out;
  unsigned size = 0;
  const auto* done =
      HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), reinterpret_cast<const unsigned char*>(data.data()),
           data.size(), reinterpret_cast<unsigned char*>(out.data()), &size);
  if (done == nullptr || size != out.size()) throw Error(Code::internal, "HMAC-SHA256 failed");
  return out;
}

}  // namespace

std::string canonical_query(const S3Request& request) {
  std::vector<std::string> parts;
  for (const auto& [name, value] : request.query)
    parts.push_back(percent_encode(name, false) + "=" + percent_encode(value, false));
  std::ranges::sort(parts);
  std::string out;
  for (const auto& part : parts) out += (out.empty() ? "" : "&") + part;
  return out;
}

HttpHeaders sign_s3(const S3Request& request, const S3Credentials& credentials, WallTime now) {
  std::string time = format_utc(now);
  std::erase_if(time, [](char c) { return c == '-' || c == ':'; });
  const std::string day = time.substr(0, 8);
  const std::string scope = day + "/" + credentials.region + "/s3/aws4_request";
  const std::string& token = credentials.session_token.reveal();
  const std::string signed_headers =
      std::string("host;x-amz-content-sha256;x-amz-date") + (token.empty() ? "" : ";x-amz-security-token");
  const std::string canonical = request.method + "\n" + request.path + "\n" + canonical_query(request) +
                                "\nhost:" + request.host + "\nx-amz-content-sha256:" + request.payload_sha256 +
                                "\nx-amz-date:" + time + (token.empty() ? "" : "\nx-amz-security-token:" + token) +
                                "\n\n" + signed_headers + "\n" + request.payload_sha256;
  const std::string to_sign = "AWS4-HMAC-SHA256\n" + time + "\n" + scope + "\n" + sha256_hex(as_bytes(canonical));
  const Secret first("AWS4" + credentials.secret_key.reveal());
  Mac key = hmac(as_bytes(first.reveal()), day);
  for (const std::string_view step :
       {std::string_view(credentials.region), std::string_view("s3"), std::string_view("aws4_request")}) {
    key = hmac(key, step);
  }
  HttpHeaders headers = {
      {"x-amz-date", time},
      {"x-amz-content-sha256", request.payload_sha256},
      {"Authorization", "AWS4-HMAC-SHA256 Credential=" + credentials.access_key + "/" + scope +
                            ", SignedHeaders=" + signed_headers + ", Signature=" + to_hex(hmac(key, to_sign))}};
  if (!token.empty()) headers.emplace_back("x-amz-security-token", token);
  return headers;
}

}  // namespace guestagent
