// The server client's digests of tables, read in one snapshot.
#include <algorithm>
#include <charconv>

#include "base/log.h"
#include "strategies/mysql/server/gtid.h"
#include "strategies/mysql/server/server_client.h"
#include "strategies/mysql/server/server_client_state.h"

namespace guestagent::mysql {
namespace {

constexpr int kQuietTries = 500;

// One column as text that is the same wherever the value is the same.
std::string column_text(const std::string& name, const std::string& type) {
  const std::string quoted = quote_name(name);
  static const std::vector<std::string> kPlain = {"tinyint",  "smallint",  "mediumint", "int",  "bigint",
                                                  "decimal",  "float",     "double",    "date", "time",
                                                  "datetime", "timestamp", "year"};
  if (std::find(kPlain.begin(), kPlain.end(), type) != kPlain.end()) return "CAST(" + quoted + " AS CHAR)";
  if (type == "json") return "SHA2(CAST(" + quoted + " AS CHAR),256)";
  if (type == "bit") return "HEX(" + quoted + ")";
  // Texts of any character set, bytes, places: never mixed with each other, and never longer than a digest.
  return "SHA2(" + quoted + ",256)";
}

std::string join(const std::vector<std::string>& parts) {
  std::string out;
  for (const std::string& part : parts) out += (out.empty() ? "" : ",") + part;
  return out;
}

std::string hex64(const std::string& decimal) {
  std::uint64_t value = 0;
  std::from_chars(decimal.data(), decimal.data() + decimal.size(), value);
  std::string out(16, '0');
  for (int i = 15; i >= 0; --i, value >>= 4) out[static_cast<std::size_t>(i)] = "0123456789abcdef"[value & 15];
  return out;
}

}  // namespace

Position ServerClient::begin_consistent_read() {
  SqlConnection& connection = state_->connection;
  const Dialect& words = dialect();
  connection.ensure();
  Position out;
  for (int i = 0; !state_->reading_consistently; ++i) {
    const std::string before = gtid_executed();
    connection.run("START TRANSACTION WITH CONSISTENT SNAPSHOT");
    // Servers that know it say where in the binary log this very snapshot stands.
    const Rows status =
        connection.run("SHOW STATUS WHERE Variable_name IN ('binlog_snapshot_file', 'binlog_snapshot_position')");
    for (std::size_t row = 0; row < status.size(); ++row) {
      const std::string name = status.text(row, "Variable_name"), value = status.text(row, "Value");
      if (value.empty()) continue;
      if (name == "Binlog_snapshot_file" || name == "binlog_snapshot_file") {
        out.file = value;
      } else {
        out.offset = status.number(row, "Value");
      }
    }
    state_->reading_consistently = true;
    if (out.file || words.gtid != GtidKind::mysql) break;
    // Else the snapshot is at a known place if nothing was committed around its beginning.
    out.gtid = connection.run("SELECT " + std::string(words.gtid_executed)).scalar();
    if (*out.gtid == before) break;
    end_consistent_read();
    if (i == kQuietTries) {
      throw Error(Code::unavailable, "reading tables at one position: transactions are committed without a pause",
                  "try again when the server is less busy, or on a replica");
    }
  }
  if (words.gtid == GtidKind::mysql && !out.gtid) out.gtid = gtid_executed();
  if (words.gtid == GtidKind::mariadb) {
    std::string sets;
    if (out.file) {
      sets = connection
                 .run("SELECT BINLOG_GTID_POS(" + quote_text(*out.file) + ", " +
                      std::to_string(out.offset.value_or(0)) + ")")
                 .scalar();
    }
    // What was applied stands in a table that the snapshot covers too; a fresh copy has it nowhere else.
    const Rows applied = connection.run(
        "SELECT CONCAT(domain_id, '-', server_id, '-', seq_no) AS g FROM mysql.gtid_slave_pos o WHERE sub_id="
        "(SELECT MAX(sub_id) FROM mysql.gtid_slave_pos i WHERE i.domain_id=o.domain_id)");
    for (std::size_t row = 0; row < applied.size(); ++row) sets += (sets.empty() ? "" : ",") + applied.text(row, "g");
    out.gtid = GtidSet::parse(GtidKind::mariadb, sets).position().text();
  }
  return out;
}

TableDigest ServerClient::digest_table(const std::string& schema, const std::string& name,
                                       std::optional<std::uint64_t> sample, std::stop_token stop) {
  SqlConnection& connection = state_->connection;
  if (!state_->reading_consistently) {
    throw Error(Code::internal, "reading a table's digest: no snapshot is open");
  }
  const Rows columns = connection.run(
      "SELECT COLUMN_NAME AS n, DATA_TYPE AS t, COLUMN_KEY AS k FROM information_schema.COLUMNS WHERE "
      "TABLE_SCHEMA=" +
      quote_text(schema) + " AND TABLE_NAME=" + quote_text(name) + " ORDER BY ORDINAL_POSITION");
  if (columns.empty())
    throw Error(Code::not_found, "reading a table's digest: " + schema + "." + name + ": there is none");
  std::vector<std::string> values, nulls, key;
  for (std::size_t i = 0; i < columns.size(); ++i) {
    const std::string text = column_text(columns.text(i, "n"), columns.text(i, "t"));
    values.push_back(text);
    nulls.push_back("ISNULL(" + quote_name(columns.text(i, "n")) + ")");
    if (columns.text(i, "k") == "PRI") key.push_back(text);
  }
  // SHA2, since MySQL 9.6 has no MD5 of its own any more. NULL is left out by CONCAT_WS: which columns are
  // NULL is said apart.
  const std::string row = "SHA2(CONCAT_WS('#'," + join(values) + ",CONCAT(" + join(nulls) + ")),256)";
  std::string sql =
      "SELECT COUNT(*) AS n, BIT_XOR(CAST(CONV(LEFT(h,16),16,10) AS UNSIGNED)) AS a,"
      " BIT_XOR(CAST(CONV(SUBSTR(h,17,16),16,10) AS UNSIGNED)) AS b,"
      " COALESCE(SUM(CAST(CRC32(h) AS UNSIGNED)),0) AS c FROM (SELECT " +
      row + " AS h FROM " + quote_name(schema) + "." + quote_name(name);
  if (sample && *sample > 1) {
    sql += " WHERE CRC32(" + (key.empty() ? row : "CONCAT_WS('#'," + join(key) + ")") + ") % " +
           std::to_string(*sample) + " = 0";
  }
  sql += ") AS digests";

  const std::uint64_t id = connection.connection_id();
  const std::stop_callback on_stop(stop, [&] {
    try {
      SqlConnection other(connection.target());
      other.run("KILL QUERY " + std::to_string(id));
    } catch (const std::exception& e) {
      log_warning("a table's digest could not be cancelled, it runs on to its end", {{"why", e.what()}});
    }
  });
  Rows digests;
  try {
    digests = connection.run(sql);
  } catch (const Error&) {
    if (stop.stop_requested()) throw Error(Code::cancelled, "reading a table's digest: cancelled on request");
    throw;
  }
  // BIT_XOR is 0 for no rows; around it COALESCE would be signed on MySQL 5.6 and 5.7, which cuts large numbers.
  // Two equal rows take each other out of an exclusive or, but not out of the count and the sum.
  return {digests.number(0, "n"),
          hex64(digests.text(0, "a")) + hex64(digests.text(0, "b")) + "-" + digests.text(0, "c")};
}

void ServerClient::end_consistent_read() {
  if (!state_->reading_consistently) return;
  state_->reading_consistently = false;
  state_->connection.run("ROLLBACK");
}

}  // namespace guestagent::mysql
