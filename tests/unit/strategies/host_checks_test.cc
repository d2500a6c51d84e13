#include "strategies/mysql/source/host_checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace guestagent::mysql {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(MissingPrivileges, AllIsEverything) {
  EXPECT_THAT(
      missing_privileges("SELECT, SUPER", {"GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION"}),
      IsEmpty());
}

TEST(MissingPrivileges, NamesWhatNoLineGivesEverywhere) {
  const std::vector<std::string> grants = {
      "GRANT RELOAD, PROCESS ON *.* TO `a`@`localhost` IDENTIFIED BY PASSWORD '*00' WITH GRANT OPTION",
      "GRANT BACKUP_ADMIN,CLONE_ADMIN ON *.* TO `a`@`localhost`", "GRANT SELECT ON `db`.* TO `a`@`localhost`",
      "GRANT `role` TO `a`@`localhost`"};
  EXPECT_THAT(missing_privileges("SELECT, RELOAD, BACKUP_ADMIN, CLONE_ADMIN, PROCESS", grants), ElementsAre("SELECT"));
}

TEST(MissingPrivileges, GrantOptionIsNeededToo) {
  EXPECT_THAT(missing_privileges("RELOAD", {"GRANT RELOAD ON *.* TO `a`@`%`"}), ElementsAre("GRANT OPTION"));
  EXPECT_THAT(missing_privileges("RELOAD", {}), ElementsAre("RELOAD", "GRANT OPTION"));
}

}  // namespace
}  // namespace guestagent::mysql
