// DatastoreUpkeep::checksum_tables: digests of tables at one position, for holding two hosts' answers side by
// side.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "config/settings.h"
#include "strategies/datastore.h"
#include "strategies/mysql/server/position.h"

namespace guestagent::mysql {

// `tables` as "db.table"; empty: all user tables. `sample` n reads about one row in n, the same ones on every
// host. `at` is waited for (mysql.catch_up_timeout at most); `read_at` is where the tables were read, at or
// after it. Writers of InnoDB tables are not blocked; tables of other engines are read as they are at that
// moment.
std::vector<TableChecksum> checksum_tables(const MysqlSettings& settings, const std::vector<std::string>& tables,
                                           std::optional<std::uint64_t> sample, const std::optional<Position>& at,
                                           Position& read_at, JobContext& job, Clock& clock);

}  // namespace guestagent::mysql
