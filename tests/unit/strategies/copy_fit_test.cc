// Which tool copies which server, and whose data the copy may become.
#include <gtest/gtest.h>

#include "strategies/mysql/copy/backup_tools.h"
#include "tests/support/errors.h"

namespace guestagent::mysql {
namespace {

ServerVersion of(const char* text) {
  return parse_datastore_version(text);
}

TEST(CopyFit, EveryWayOfEveryDialectHasARowOrNoToolTakesIt) {
  for (const Dialect& dialect : dialects()) {
    for (const std::string_view tool : dialect.backup_tools) {
      EXPECT_NE(copy_fit(dialect.from, tool), nullptr) << dialect.from.text() << " " << tool;
    }
  }
  for (const CopyFit& row : copy_fits()) {
    EXPECT_LT(row.from, row.before);
    EXPECT_LE(row.before.major, row.target_before.major) << row.from.text() << " " << row.tool;
    EXPECT_EQ(row.series.empty(), row.tool == "clone");
  }
  EXPECT_EQ(copy_fit(of("mysql-8.0.16"), "clone"), nullptr);
  EXPECT_EQ(copy_fit(of("mariadb-10.11.19"), "xtrabackup"), nullptr);
}

TEST(CopyFit, TheToolsSeriesMustBeTheServersAndAMisfitNamesTheRightOne) {
  struct Row {
    const char *tool, *version, *server, *right;  // right: nullptr when it fits
  };
  const Row rows[] = {
      {"xtrabackup", "2.3.10", "mysql-5.6.24", nullptr},
      {"xtrabackup", "2.4.29", "mysql-5.6.51", nullptr},
      {"xtrabackup", "2.4.29", "percona-5.7.44", nullptr},
      {"xtrabackup", "2.3.10", "mysql-5.7.44", "2.4"},
      {"xtrabackup", "2.2.12", "mysql-5.6.24", "2.3 or 2.4"},
      {"xtrabackup", "8.0.35-31", "mysql-5.6.24", "2.3 or 2.4"},
      {"xtrabackup", "2.4.29", "mysql-8.0.36", "8.0"},
      {"xtrabackup", "8.0.35-31", "mysql-8.0.42", nullptr},  // from 8.0.34 on it copies later ones
      {"xtrabackup", "8.0.30-23", "mysql-8.0.30", nullptr},
      {"xtrabackup", "8.0.30-23", "mysql-8.0.32", "8.0.32 or newer"},
      {"xtrabackup", "8.0.30-23", "mysql-8.0.42", "8.0.34 or newer"},
      {"xtrabackup", "8.4.0-1", "mysql-8.4.6", nullptr},
      {"xtrabackup", "8.0.35-31", "mysql-8.4.6", "8.4"},
      {"xtrabackup", "8.3.0-1", "mysql-8.3.0", nullptr},
      {"xtrabackup", "9.1.0-1", "mysql-9.1.0", nullptr},
      {"xtrabackup", "9.1.0-1", "mysql-9.7.4", "9.7"},
      {"clone", "", "mysql-9.7.4", nullptr},
      {"clone", "", "mysql-8.0.16", "xtrabackup"},
      {"mariadb-backup", "10.11.19", "mysql-5.7.44", "xtrabackup"},
      {"xtrabackup", "8.0.35-31", "mariadb-10.11.19", "mariadb-backup"},
      {"mariadb-backup", "10.11.19", "mariadb-10.11.4", nullptr},
      {"mariadb-backup", "10.11.19", "mariadb-11.8.6", "11.8"},
      {"mariadb-backup", "11.8.6", "mariadb-10.11.19", "10.11"},
  };
  for (const Row& row : rows) {
    const std::string why = tool_misfit({row.tool, "/tool", row.version}, of(row.server));
    SCOPED_TRACE(std::string(row.tool) + " " + row.version + " for " + row.server + ": " + why);
    EXPECT_EQ(why.empty(), row.right == nullptr);
    if (row.right != nullptr) {
      EXPECT_NE(why.find(row.right), std::string::npos);
    }
  }
}

TEST(CopyFit, ANewerToolPreparesWhereTheRedoLogIsTheSame) {
  const auto why = [](const char* version, const char* source) {
    return prepare_misfit({"mariadb-backup", "/tool", version}, of(source));
  };
  EXPECT_EQ(why("10.11.19", "mariadb-10.11.4"), "");
  EXPECT_EQ(why("11.8.6", "mariadb-10.11.19"), "");
  EXPECT_NE(why("10.11.19", "mariadb-11.8.6"), "");
  EXPECT_NE(why("11.8.6", "mariadb-10.6.21"), "");
  EXPECT_NE(prepare_misfit({"xtrabackup", "/tool", "8.4.0-1"}, of("mysql-8.0.36")), "");
}

TEST(CopyFit, TargetsOfEachSource) {
  const auto refused = [](const char* source, const char* target) {
    return !unsupported_pair(of(source), of(target)).empty();
  };
  EXPECT_FALSE(refused("mysql-5.6.24", "mysql-5.7.44"));
  EXPECT_TRUE(refused("mysql-5.6.24", "mysql-8.0.36"));
  EXPECT_FALSE(refused("mysql-5.7.44", "mysql-8.0.36"));
  EXPECT_TRUE(refused("mysql-5.7.44", "mysql-8.4.6"));
  EXPECT_FALSE(refused("mysql-8.0.36", "mysql-8.4.6"));
  EXPECT_TRUE(refused("mysql-8.0.36", "mysql-9.7.4"));
  EXPECT_FALSE(refused("mysql-8.4.6", "mysql-9.7.4"));
  EXPECT_FALSE(refused("mysql-5.6.51", "mysql-5.6.24"));
  EXPECT_TRUE(refused("mysql-9.7.4", "mysql-9.7.3"));
  EXPECT_FALSE(refused("mariadb-10.4.34", "mariadb-11.8.6"));
}

TEST(CopyFit, NoUpgradeWithinASeriesNorWhereTheServerDoesIt) {
  MysqlSettings settings;
  EXPECT_FALSE(find_upgrade_tool(settings, of("mariadb-10.11.4"), of("mariadb-10.11.19")));
  EXPECT_FALSE(find_upgrade_tool(settings, of("mysql-8.0.36"), of("mysql-8.4.6")));
  settings.tools_dir = "/nonexistent";
  settings.server.command = {"/nonexistent/mariadbd"};
  const Error error = test::error_of([&] { find_upgrade_tool(settings, of("mariadb-10.6.1"), of("mariadb-99.1.0")); });
  EXPECT_EQ(error.code(), Code::failed_precondition);
  EXPECT_NE(std::string(error.what()).find("mariadb-upgrade of series 99.1"), std::string::npos) << error.what();
}

}  // namespace
}  // namespace guestagent::mysql
