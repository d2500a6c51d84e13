// An HTTP answer as it comes from a peer that may be anybody: bounded, whatever it sends.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "stream/buffer.h"

namespace guestagent {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpResponse {
  int status = 0;
  HttpHeaders headers;  // names in lower case
  // Of an answer that is no success, at most its first 64 KiB.
  Buffer body;

  bool ok() const { return status >= 200 && status < 300; }
  // The first of that lower-case name.
  std::optional<std::string_view> header(std::string_view name) const;
  // What Content-Length says; nullopt when there is none that is a number.
  std::optional<std::uint64_t> length() const;
};

// Takes the lines and bytes of one answer (and of the 1xx, or the 417, before it). Where a call answers false no more
// is wanted.
class AnswerReader {
 public:
  explicit AnswerReader(std::uint64_t max_body) : max_body_(max_body) {}

  // One line of a head or a trailer, its end included. At most 256 headers and 64 KiB of them.
  bool header_line(std::string_view line);
  // A piece of the body.
  bool body_bytes(Bytes data);
  // A piece of a success's body that somebody else has taken; whether he takes more.
  bool passed_on(Bytes data, bool more);

  HttpResponse& response() { return response_; }
  const HttpResponse& response() const { return response_; }
  bool complete_headers() const { return complete_headers_; }  // of the final answer
  bool saw_continue() const { return saw_continue_; }          // a "100 Continue" came
  bool no_leave() const { return no_leave_; }                  // a "417 Expectation Failed" came
  const std::string& garbage() const { return garbage_; }      // what was wrong with its form; empty: nothing
  bool too_large() const { return too_large_; }                // a success larger than max_body
  bool enough() const { return enough_; }                      // more of an error's body than is kept, or than is taken
  std::uint64_t received() const { return header_bytes_ + response_.body.size() + passed_on_; }

 private:
  const std::uint64_t max_body_;
  HttpResponse response_;
  std::size_t header_bytes_ = 0;
  std::uint64_t passed_on_ = 0;
  std::string garbage_;
  bool complete_headers_ = false, saw_continue_ = false, no_leave_ = false, too_large_ = false, enough_ = false;
};

// "Sun, 06 Nov 1994 08:49:37 GMT" and the other forms of HTTP; nullopt for what is no date.
std::optional<WallTime> parse_http_date(std::string_view text);

}  // namespace guestagent
