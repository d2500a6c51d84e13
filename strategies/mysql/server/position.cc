#include "strategies/mysql/server/position.h"

#include <algorithm>

#include "strategies/metadata.h"

namespace guestagent::mysql {
namespace {

constexpr std::size_t kMaxGtid = std::size_t{16} << 20;  // a set of 3,000 UUIDs has 162 KB

// A GTID set's text may go over lines (MySQL); what it consists of is GtidSet's to judge.
void check_gtid(const JsonReader& in, std::string_view gtid) {
  const auto foreign = [](char c) {
    return !((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
             std::string_view(":,-_ \t\r\n").find(c) != std::string_view::npos);
  };
  if (gtid.size() > kMaxGtid || std::any_of(gtid.begin(), gtid.end(), foreign))
    throw in.error("gtid", "is no set of GTIDs");
}

void check_file(const JsonReader& in, std::string_view file) {
  check_line(in, "file", file, 255);
  if (file.empty() || file.find('/') != std::string_view::npos)
    throw in.error("file", "must be the name of a binary log");
}

Position members_of(const JsonReader& in) {
  Position out;
  out.file = in.opt_string("file");
  out.offset = in.opt_uint("position");
  out.gtid = in.opt_string("gtid");
  const std::string known = in.opt_string("known").value_or("now");
  if (known != "now" && known != "restored") throw in.error("known", "must be \"now\" or \"restored\"");
  out.restored = known == "restored";
  return out;
}

}  // namespace

OwnJson own(const Position& position) {
  JsonWriter out;
  out.begin_object();
  out.member_or_null("file", position.file);
  out.member_or_null("position", position.offset);
  out.member_or_null("gtid", position.gtid);
  out.member("known", position.restored ? std::string_view("restored") : std::string_view("now"));
  return OwnJson(out.end_object().text());
}

Position read_position(const JsonReader& in) {
  Position out = members_of(in);
  if (!out.restored && !out.gtid && !(out.file && out.offset)) {
    throw in.error("file", "a position needs a file and a position, or a GTID set");
  }
  if (out.file.has_value() != out.offset.has_value()) {
    throw in.error(out.file ? "position" : "file", "file and position go together");
  }
  if (out.file) check_file(in, *out.file);
  if (out.gtid) check_gtid(in, *out.gtid);
  return out;
}

Position position_of(const OwnJson& own) {
  const JsonDocument document = parse_json(own.text(), "position");
  return members_of(JsonReader(document, "position", Code::internal));
}

}  // namespace guestagent::mysql
