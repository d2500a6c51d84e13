#include "strategies/mysql/server/gtid.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "base/text.h"

namespace guestagent::mysql {
namespace {

Error malformed(std::string_view member, std::string_view why) {
  return Error(Code::invalid_argument, "reading a GTID set: \"" + printable(member, 80) + "\": " + std::string(why));
}

std::string_view trim_gtid(std::string_view text) {
  const auto space = [](char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; };
  while (!text.empty() && space(text.front())) text.remove_prefix(1);
  while (!text.empty() && space(text.back())) text.remove_suffix(1);
  return text;
}

// Takes what stands before `separator` off `text`; the rest when there is none.
std::string_view take(std::string_view& text, char separator) {
  const std::size_t at = text.find(separator);
  const std::string_view out = text.substr(0, at);
  text = at == std::string_view::npos ? std::string_view() : text.substr(at + 1);
  return out;
}

template <typename T>
bool read_number(std::string_view text, T& out) {
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), out);
  return failed == std::errc() && end == text.data() + text.size() && !text.empty();
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  return out;
}

bool is_uuid(std::string_view text) {
  if (text.size() != 36) return false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (i == 8 || i == 13 || i == 18 || i == 23) {
      if (c != '-') return false;
    } else if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) {
      return false;
    }
  }
  return true;
}

bool is_tag(std::string_view text) {
  if (text.empty() || text.size() > 32 || (text[0] >= '0' && text[0] <= '9')) return false;
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; });
}

constexpr std::uint64_t kMaxNumber = INT64_MAX;

}  // namespace

void GtidSet::normalise(Intervals& intervals) {
  std::sort(intervals.begin(), intervals.end());
  std::size_t kept = 0;
  for (std::size_t i = 1; i < intervals.size(); ++i) {
    if (intervals[i].first <= intervals[kept].second) {
      intervals[kept].second = std::max(intervals[kept].second, intervals[i].second);
    } else {
      intervals[++kept] = intervals[i];
    }
  }
  if (!intervals.empty()) intervals.resize(kept + 1);
}

GtidSet GtidSet::parse(GtidKind kind, std::string_view text) {
  GtidSet out;
  if (kind == GtidKind::mariadb) out = parse_mariadb(text);
  if (kind == GtidKind::mysql) out = parse_mysql(text);
  if (kind == GtidKind::none && !trim_gtid(text).empty()) throw malformed(text, "this server has no GTIDs");
  out.kind_ = kind;
  for (auto& [key, intervals] : out.intervals_) normalise(intervals);
  return out;
}

GtidSet GtidSet::parse_mariadb(std::string_view text) {
  GtidSet out;
  std::string_view rest = trim_gtid(text);
  const bool something = !rest.empty();
  while (!rest.empty()) {
    std::string_view member = trim_gtid(take(rest, ','));
    const std::string_view whole = member;
    std::uint32_t domain = 0, server = 0;
    std::uint64_t number = 0;
    if (!read_number(take(member, '-'), domain) || !read_number(take(member, '-'), server) ||
        !read_number(member, number)) {
      throw malformed(whole, "not DOMAIN-SERVER-NUMBER");
    }
    if (number == 0 || number > kMaxNumber) throw malformed(whole, "its number is out of range");
    out.intervals_[std::to_string(domain)].emplace_back(1, number + 1);
    std::uint64_t& last = out.servers_[std::to_string(domain)][server];
    last = std::max(last, number);
  }
  if (something && trim_gtid(text).back() == ',') throw malformed(text, "it ends in a comma");
  return out;
}

GtidSet GtidSet::parse_mysql(std::string_view text) {
  GtidSet out;
  std::string_view rest = trim_gtid(text);
  while (!rest.empty()) {
    std::string_view member = trim_gtid(take(rest, ','));
    const std::string_view whole = member;
    // Servers write an empty member at a line's end in places.
    if (member.empty()) continue;
    const std::string uuid = lower(trim_gtid(take(member, ':')));
    if (!is_uuid(uuid)) throw malformed(whole, "no UUID");
    if (member.empty()) throw malformed(whole, "no interval");
    std::string key = uuid;
    bool expects_interval = true;
    while (!member.empty()) {
      const std::string token = lower(trim_gtid(take(member, ':')));
      if (is_tag(token)) {
        key = uuid + ":" + token;
        expects_interval = true;
        continue;
      }
      std::string_view bounds = token;
      const std::string_view first = trim_gtid(take(bounds, '-'));
      std::uint64_t from = 0, last = 0;
      if (!read_number(first, from)) throw malformed(whole, "not an interval");
      last = from;
      if (token.find('-') != std::string::npos && !read_number(trim_gtid(bounds), last))
        throw malformed(whole, "not an interval");
      if (from == 0 || last < from || last > kMaxNumber) throw malformed(whole, "an interval out of range");
      out.intervals_[key].emplace_back(from, last + 1);
      expects_interval = false;
    }
    if (expects_interval) throw malformed(whole, "no interval");
  }
  return out;
}

std::string GtidSet::text() const {
  std::string out;
  if (kind_ == GtidKind::mariadb) {
    // Domains are numbers: in their order, not in that of their digits.
    std::vector<std::pair<std::uint64_t, std::string>> members;
    for (const auto& [domain, servers] : servers_) {
      for (const auto& [server, number] : servers) {
        members.emplace_back(std::stoull(domain), domain + "-" + std::to_string(server) + "-" + std::to_string(number));
      }
    }
    std::stable_sort(members.begin(), members.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    for (const auto& [domain, member] : members) out += (out.empty() ? "" : ",") + member;
    return out;
  }
  for (const auto& [key, intervals] : intervals_) {
    out += (out.empty() ? "" : ",") + key;
    for (const auto& [from, end] : intervals) {
      out += ":" + std::to_string(from);
      if (end - from > 1) out += "-" + std::to_string(end - 1);
    }
  }
  return out;
}

std::uint64_t GtidSet::missing(const GtidSet& other) const {
  std::uint64_t out = 0;
  for (const auto& [key, intervals] : other.minus(*this).intervals_) {
    for (const auto& [from, end] : intervals) out += end - from;
  }
  return out;
}

bool GtidSet::contains(const GtidSet& other) const {
  return other.minus(*this).empty();
}

GtidSet GtidSet::minus(const GtidSet& other) const {
  static const Intervals kNone;
  GtidSet out;
  out.kind_ = kind_;
  for (const auto& [key, intervals] : intervals_) {
    const auto found = other.intervals_.find(key);
    const Intervals& theirs = found == other.intervals_.end() ? kNone : found->second;
    Intervals left;
    auto next = theirs.begin();
    for (const auto& [from, end] : intervals) {
      std::uint64_t at = from;
      while (next != theirs.end() && next->second <= at) ++next;
      for (; next != theirs.end() && next->first < end; ++next) {
        if (next->first > at) left.emplace_back(at, next->first);
        at = std::max(at, next->second);
        // The same interval may reach into the next one of ours.
        if (next->second > end) break;
      }
      if (at < end) left.emplace_back(at, end);
    }
    if (!left.empty()) out.intervals_[key] = std::move(left);
  }
  for (const auto& [domain, intervals] : out.intervals_) {
    if (kind_ != GtidKind::mariadb) break;
    for (const auto& [server, number] : servers_.at(domain)) {
      if (number >= intervals.front().first) out.servers_[domain][server] = number;
    }
  }
  return out;
}

GtidSet GtidSet::written_by(std::string_view origin) const {
  GtidSet out;
  out.kind_ = kind_;
  if (kind_ == GtidKind::mariadb) {
    std::uint32_t server = 0;
    if (!read_number(origin, server)) return out;
    for (const auto& [domain, servers] : servers_) {
      const auto mine = servers.find(server);
      if (mine == servers.end()) continue;
      out.servers_[domain] = {{server, mine->second}};
      out.intervals_[domain] = {{1, mine->second + 1}};
    }
    return out;
  }
  const std::string uuid = lower(origin);
  for (const auto& [key, intervals] : intervals_) {
    if (key.starts_with(uuid) && !uuid.empty()) out.intervals_[key] = intervals;
  }
  return out;
}

std::uint64_t GtidSet::last_of(const GtidSet& set, const std::string& domain, std::uint32_t server) {
  const auto servers = set.servers_.find(domain);
  if (servers == set.servers_.end()) return 0;
  const auto last = servers->second.find(server);
  return last == servers->second.end() ? 0 : last->second;
}

GtidSet GtidSet::not_written_in(const GtidSet& logged, const GtidSet& followed) const {
  GtidSet out;
  out.kind_ = kind_;
  for (const auto& [domain, servers] : servers_) {
    for (const auto& [server, number] : servers) {
      const std::uint64_t known = std::max(last_of(logged, domain, server), last_of(followed, domain, server));
      if (known >= number) continue;
      out.servers_[domain][server] = number;
      out.intervals_[domain].emplace_back(known == 0 ? number : known + 1, number + 1);
    }
  }
  return out;
}

GtidSet GtidSet::position() const {
  GtidSet out = *this;
  for (auto& [domain, servers] : out.servers_) {
    const auto last = std::max_element(servers.begin(), servers.end(),
                                       [](const auto& a, const auto& b) { return a.second < b.second; });
    servers = std::map<std::uint32_t, std::uint64_t>{*last};
  }
  return out;
}

}  // namespace guestagent::mysql
