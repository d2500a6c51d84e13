#include "strategies/mysql/install/table_check.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <tuple>

#include "strategies/mysql/host/host_places.h"
#include "strategies/mysql/server/replication_errors.h"

namespace guestagent::mysql {
namespace {

// As real servers say it.
TEST(TableTrouble, IsToldByNumberAndWords) {
  const std::vector<std::pair<TableFault, TableTrouble>> rows = {
      {{1017, "Can't find file: './k/a.MAI' (errno: 2 \"No such file or directory\")"}, TableTrouble::lost},
      {{29, "File './k/a.MYD' not found (Errcode: 2 \"No such file or directory\")"}, TableTrouble::lost},
      {{13, "Can't get stat of './k/a.CSV' (Errcode: 2 \"No such file or directory\")"}, TableTrouble::lost},
      {{1030, "Got error 194 \"Tablespace is missing for a table\" from storage engine InnoDB"}, TableTrouble::lost},
      {{1877, "Table `k`.`a` is corrupted. Please drop the table and recreate."}, TableTrouble::lost},
      {{1812, "Tablespace is missing for table `k`.`a`."}, TableTrouble::lost},
      {{1146, "Table 'k.a' doesn't exist"}, TableTrouble::lost},
      {{1033, "Incorrect information in file: './k/a.frm'"}, TableTrouble::lost},
      {{3185, "Can't find master key from keyring, please check in the server log if a keyring is loaded"},
       TableTrouble::no_key},
      {{1030, "Got error 192 \"Table encrypted but decryption failed\" from storage engine InnoDB"},
       TableTrouble::no_key},
      {{1286, "Unknown storage engine 'SPIDER'"}, TableTrouble::no_engine},
      {{1814, "Tablespace has been discarded for table `a`"}, TableTrouble::passing},
      {{1205, "Lock wait timeout exceeded"}, TableTrouble::passing},
  };
  for (const auto& [fault, trouble] : rows)
    EXPECT_EQ(table_trouble(fault, false), trouble) << fault.number << " " << fault.message;
  // MariaDB's InnoDB with other keys than the table's.
  EXPECT_EQ(table_trouble(rows[4].first, true), TableTrouble::no_key);
  EXPECT_EQ(table_trouble(rows[0].first, true), TableTrouble::lost);
}

TEST(OtherData, IsToldByWhatOnlyTheCopyHas) {
  const DataMark copy{"uuid-1", true, {"20 d/a", "21 d/b", "22 d/c"}};
  EXPECT_EQ(why_other_data(copy, copy), std::nullopt);
  EXPECT_EQ(why_other_data(copy, {"uuid-1", true, {"20 d/a", "22 d/c", "30 d/new"}}), std::nullopt)
      << "a table was dropped meanwhile";
  EXPECT_NE(why_other_data(copy, {"uuid-2", true, copy.tables}), std::nullopt);
  EXPECT_NE(why_other_data(copy, {"uuid-1", false, copy.tables}), std::nullopt);
  EXPECT_NE(why_other_data(copy, {"uuid-1", true, {"20 cluster/a", "21 cluster/b"}}), std::nullopt);
  EXPECT_NE(why_other_data(copy, {"uuid-1", true, {}}), std::nullopt);
  // What the copy did not have says nothing.
  EXPECT_EQ(why_other_data({}, {"uuid-2", false, {"1 a/b"}}), std::nullopt);
}

TEST(ApplyingThread, IsToldByWhatItLacks) {
  ReplicaStatus status;
  const std::vector<std::tuple<unsigned, std::string, Code>> rows = {
      {3185, "Can't find master key from keyring", Code::failed_precondition},
      {13146, "Coordinator stopped because there were error(s) in the worker(s): Can't find master key from keyring",
       Code::failed_precondition},
      {1286, "Unknown storage engine 'x'", Code::failed_precondition},
      {1666, "Cannot execute statement: impossible to write to binary log", Code::failed_precondition},
      {1032, "Can't find record in 't'", Code::data_loss},
      {1062, "Duplicate entry", Code::data_loss},
  };
  for (const auto& [number, words, code] : rows) {
    status.sql_errno = number;
    status.sql_error = words;
    const auto error = replication_error(status, false);
    ASSERT_TRUE(error) << words;
    EXPECT_EQ(error->code(), code) << error->what();
    EXPECT_EQ(error->hint().find("attach it anew") != std::string::npos, code == Code::data_loss) << error->hint();
  }
}

class HostPlace : public ::testing::Test {
 protected:
  HostPlace() : dir(fs::temp_directory_path(), "places-"), data(dir.path() / "data") {
    for (const char* name : {"data", "data/keys", "data/tmp", "data/d", "data/logs"}) make_dir(dir.path() / name);
    for (const char* name : {"keys.txt", "keys/k", "d/db.opt", "d/key", "mysqld.my", "keyring", "ibdata1"})
      write_file_atomic(data / name, "x");
    write_file_atomic(data / "component_keyring_file.cnf",
                      "{\"path\": \"" + (data / "keyring").string() + "\", \"read_only\": false}");
    write_file_atomic(dir.path() / "outside", "x");
  }
  HostPlaces of(const std::string& name, const std::string& value) const {
    return host_places(data, {{"/etc/my.cnf", 1, "mysqld", name, value}});
  }
  bool keeps(const std::string& name, const std::string& value, const std::string& entry) const {
    const auto kept = of(name, value).kept;
    return std::find(kept.begin(), kept.end(), entry) != kept.end();
  }

  TempDir dir;
  const fs::path data;
};

TEST_F(HostPlace, KeepsWhatTheConfigurationNames) {
  EXPECT_TRUE(keeps("ssl_key", (data / "keys.txt").string(), "keys.txt"));
  EXPECT_TRUE(keeps("file_key_management_filename", "keys.txt", "keys.txt"));
  EXPECT_TRUE(keeps("file_key_management_filekey", "FILE:" + (data / "keys/k").string(), "keys"));
  EXPECT_TRUE(keeps("keyring_file_data", "keyring", "keyring"));
  EXPECT_FALSE(keeps("ssl_key", (data / "d/key").string(), "d")) << "a database";
  EXPECT_FALSE(keeps("ssl_key", (dir.path() / "outside").string(), "outside"));
  EXPECT_FALSE(keeps("ssl_key", data.string(), "data"));
  EXPECT_FALSE(keeps("ssl_key", "nowhere", "nowhere"));
  EXPECT_FALSE(keeps("innodb_data_file_path", "ibdata1", "ibdata1"));
}

TEST_F(HostPlace, KeepsComponentsWithWhatTheyName) {
  const auto kept = host_places(data, {}).kept;
  for (const char* name : {"mysqld.my", "component_keyring_file.cnf", "keyring"}) {
    EXPECT_NE(std::find(kept.begin(), kept.end(), name), kept.end()) << name;
  }
  EXPECT_EQ(kept.size(), 3U);
  write_file_atomic(data / "component_keyring_file.cnf", "no JSON");
  EXPECT_EQ(host_places(data, {}).kept.size(), 2U);
}

TEST_F(HostPlace, NeedsDirectoriesForTemporaryFilesAndLogs) {
  EXPECT_EQ(of("tmpdir", "/tmp:" + (data / "tmp").string()).needed, std::vector<fs::path>{data / "tmp"});
  EXPECT_EQ(of("log_error", "logs/error.log").needed, std::vector<fs::path>{data / "logs"});
  EXPECT_TRUE(of("log_error", "error.log").needed.empty());
  EXPECT_TRUE(of("tmpdir", "/tmp").needed.empty());
}

}  // namespace
}  // namespace guestagent::mysql
