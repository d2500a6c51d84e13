#include <gtest/gtest.h>

#include "strategies/mysql/copy/tool_options.h"
#include "strategies/mysql/server/server_client.h"
#include "strategies/mysql/server/sql_connection.h"
#include "tests/support/errors.h"

namespace guestagent::mysql {
namespace {

using test::code_of;

class ClientFile : public ::testing::Test {
 protected:
  ClientCredentials read(const std::string& text, unsigned mode = 0600) {
    const fs::path file = dir_.path() / "client.cnf";
    write_file_atomic(file, text, mode);
    return read_client_file(file);
  }
  TempDir dir_{"/tmp", "guestagent-client-"};
};

TEST_F(ClientFile, UserAndPasswordOfTheClientGroups) {
  const ClientCredentials found = read(
      "# c\n[mysqld]\nuser=mysql\n[client]\nuser = agent # who\npassword=\"p #w\"\n; "
      "x\n[mysqldump]\nuser=d\n");
  EXPECT_EQ(found.user, "agent");
  EXPECT_EQ(found.password.reveal(), "p #w");
}

TEST_F(ClientFile, AMoreSpecialGroupWins) {
  EXPECT_EQ(read("[mysql]\nuser=b\n[client]\nuser=a\n").user, "b");
}

TEST_F(ClientFile, WhatIsWrittenForToolsIsReadBack) {
  for (const std::string& password :
       {std::string("plain"), std::string("a\"b\\c#d;e 'f"), std::string("\\n\\t\\s"), std::string(" x ")}) {
    EXPECT_EQ(read("[client]\npassword=" + option_file_value(password) + "\n").password.reveal(), password);
  }
  EXPECT_EQ(code_of([] { option_file_value("a\nb"); }), "INVALID_ARGUMENT");
}

TEST_F(ClientFile, AFileThatEverybodyReadsIsRefused) {
  EXPECT_EQ(code_of([&] { read("[client]\nuser=a\n", 0644); }), "PERMISSION_DENIED");
  EXPECT_EQ(code_of([&] { read_client_file(dir_.path() / "none"); }), "NOT_FOUND");
}

TEST(Quoting, HostileNamesStayInside) {
  EXPECT_EQ(quote_name("a`b"), "`a``b`");
  EXPECT_EQ(quote_text("a'b\\c"), "'a''b\\\\c'");
  EXPECT_EQ(quote_account("x'@'%", "%"), "'x''@''%'@'%'");
  EXPECT_EQ(code_of([] { quote_name(""); }), "INVALID_ARGUMENT");
  EXPECT_EQ(code_of([] { quote_name(std::string_view("a\0b", 3)); }), "INVALID_ARGUMENT");
  EXPECT_EQ(code_of([] { quote_text(std::string_view("a\0b", 3)); }), "INVALID_ARGUMENT");
}

}  // namespace
}  // namespace guestagent::mysql
