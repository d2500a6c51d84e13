#include "fault_table.h"

namespace guestagent {
namespace {

PeerPlan status(int code, std::vector<std::pair<std::string, std::string>> headers = {}) {
  return {.instead = PeerAnswer{.status = code, .headers = std::move(headers), .body = "scripted\n"}};
}

void spoil_etag(PeerAnswer& answer) {
  for (auto& [name, value] : answer.headers) {
    if (name == "Etag" || name == "etag") value = "0123456789abcdef0123456789abcdef";
  }
}

}  // namespace

std::vector<FaultRow> fault_table() {
  return {
      {"401", status(401), true, Code::permission_denied},
      {"403", status(403), false, Code::permission_denied},
      {"404", status(404), false, Code::not_found},
      {"408", status(408), true, Code::unavailable},
      {"413", status(413), false, Code::resource_exhausted},
      {"422", status(422), true, Code::data_loss},
      {"429", status(429, {{"Retry-After", "3"}}), true, Code::unavailable},
      {"498", status(498), true, Code::unavailable},
      {"499", status(499), true, Code::unavailable},
      {"500", status(500), true, Code::unavailable},
      {"502", status(502), true, Code::unavailable},
      {"503", status(503), true, Code::unavailable},
      {"507", status(507), true, Code::resource_exhausted},
      {"599", status(599), true, Code::unavailable},
      {"302", status(302, {{"Location", "http://127.0.0.1:9/"}}), false, Code::failed_precondition},
      {"206", status(206), true, Code::unavailable},
      {"refused", {}, true, Code::unavailable},
      {"reset in body", {.fault = PeerFault::reset_in_body}, true, Code::unavailable},
      {"reset after body", {.fault = PeerFault::reset_after_body}, true, Code::unavailable},
      {"closed", {.fault = PeerFault::close}, true, Code::unavailable},
      {"stall", {.fault = PeerFault::stall}, true, Code::unavailable},
      {"stall in answer", {.fault = PeerFault::stall_in_answer}, true, Code::unavailable},
      {"truncated", {.fault = PeerFault::truncate}, true, Code::unavailable},
      {"wrong ETag", {.edit = spoil_etag}, true, Code::data_loss},
      {"garbage", {.fault = PeerFault::garbage_headers}, true, Code::unavailable},
      {"endless headers", {.fault = PeerFault::endless_headers}, true, Code::unavailable},
      {"endless body", {.fault = PeerFault::endless_body}, false, Code::resource_exhausted},
      {"TLS", {}, false, Code::failed_precondition},
  };
}

std::string fault_content(std::size_t size) {
  std::string out(size, 'a');
  for (std::size_t i = 0; i < size; ++i) out[i] = static_cast<char>('a' + (i * 7 + i / 251) % 26);
  return out;
}

}  // namespace guestagent
