// What a store or an address may answer: heads and bodies of HTTP, listings in XML, addresses, dates. The
// first byte says which.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "net/answer_reader.h"
#include "net/url.h"
#include "storage/http/etag.h"
#include "storage/s3/s3_errors.h"
#include "storage/s3/xml.h"

using namespace guestagent;

namespace {

void check(bool fact) {
  if (!fact) std::abort();
}

void read_answer(std::string_view text) {
  constexpr std::uint64_t kMost = 1000;
  AnswerReader reader(kMost);
  while (!text.empty() && !reader.complete_headers()) {
    const auto end = std::min(text.find('\n'), text.size() - 1) + 1;
    if (!reader.header_line(text.substr(0, end))) return check(!reader.garbage().empty());
    text.remove_prefix(end);
  }
  while (!text.empty()) {
    const auto piece = text.substr(0, 97);
    if (!reader.body_bytes(as_bytes(piece))) return check(reader.too_large() || reader.enough());
    text.remove_prefix(piece.size());
  }
  check(reader.response().body.size() <= (reader.response().ok() ? kMost : 64U << 10));
  check(reader.response().headers.size() <= 256);
  reader.response().length();
  const auto md5 = etag_md5(reader.response());
  check(!md5 || md5->size() == 32);
  check(read_s3_refusal(reader.response()).message.size() < 1000);
}

unsigned depth(const XmlElement& element) {
  unsigned most = 0;
  for (const XmlElement& child : element.children) most = std::max(most, depth(child));
  return most + 1;
}

void read_address(std::string_view text) {
  const auto url = parse_url(text);
  if (!url) return;
  check(url->scheme == "http" || url->scheme == "https");
  check(!url->host.empty() && url->port != 0);
  for (const std::string& part : url->path)
    check(!part.empty() && part != "." && part != ".." && part.find('/') == std::string::npos);
  const std::string written = url->origin() + "/" + percent_encode(join_path(url->path), true);
  check(parse_url(written) == url || written.size() > 8192);  // encoding makes it longer than what is read
  Url root = *url;
  check(!path_below(root, *url));
  if (!root.path.empty()) {
    root.path.pop_back();
    check(path_below(root, *url).has_value());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0]) {
    case 'h':
      read_answer(text);
      break;
    case 'x':
      if (const auto xml = parse_xml(text)) check(depth(*xml) <= 16);
      break;
    case 'u':
      read_address(text);
      break;
    default:
      parse_http_date(text);
      check(percent_decode(percent_encode(text, false)) == text);
  }
  return 0;
}
