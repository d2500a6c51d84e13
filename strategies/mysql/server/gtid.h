// Sets of global transaction ids, of both kinds, to compare histories with.
//
// MariaDB's is a position: for each domain the last transaction, which stands for all before it in that
// domain. MySQL's is a set of intervals for each UUID (and tag). Text comes from servers and from metadata:
// parse() refuses what is not exactly such a set.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "strategies/mysql/server/dialect.h"

namespace guestagent::mysql {

class GtidSet {
 public:
  GtidSet() = default;

  // Throws Error(invalid_argument) saying what is wrong with `text`. White space around members is ignored.
  static GtidSet parse(GtidKind kind, std::string_view text);

  bool empty() const { return intervals_.empty(); }
  // In the server's spelling, members in order; one line.
  std::string text() const;

  // Whether everything in `other` is here too. REQUIRES: the same kind, or one of them empty.
  bool contains(const GtidSet& other) const;
  // How many transactions of `other` are missing here.
  std::uint64_t missing(const GtidSet& other) const;
  // What is here and not in `other`. For MariaDB's kind: of each domain that goes further here, the
  // transactions past the other's.
  GtidSet minus(const GtidSet& other) const;

  // Of the transactions that server `origin` wrote itself: MariaDB, the entries with that server_id ("7");
  // MySQL, those of its UUID.
  GtidSet written_by(std::string_view origin) const;

  // MariaDB: of each domain only its last transaction, as a position has it; others are as they are.
  GtidSet position() const;

  // MariaDB: which of these transactions, the last of each domain, a server cannot be shown to have: neither has it
  // `logged` (its gtid_binlog_state) one of the same server that is as late, nor `followed` (its gtid_slave_pos).
  GtidSet not_written_in(const GtidSet& logged, const GtidSet& followed) const;

 private:
  static std::uint64_t last_of(const GtidSet& set, const std::string& domain, std::uint32_t server);
  // Half-open intervals, ordered, neither touching nor overlapping.
  using Intervals = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

  static GtidSet parse_mariadb(std::string_view text);
  static GtidSet parse_mysql(std::string_view text);
  static void normalise(Intervals& intervals);

  GtidKind kind_ = GtidKind::none;
  // MariaDB: domain -> [1, last + 1). MySQL: "uuid" or "uuid:tag" -> intervals.
  std::map<std::string, Intervals> intervals_;
  // MariaDB only: domain -> the server_ids that stand with it, with their last numbers (a state has several,
  // a position one).
  std::map<std::string, std::map<std::uint32_t, std::uint64_t>> servers_;
};

}  // namespace guestagent::mysql
