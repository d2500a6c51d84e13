// What is said in a session before anything else.
#pragma once

#include <string_view>

namespace guestagent::mysql {

// Limits that a server sets for everybody must not cut an answer, nor end a statement; in comments what only some
// versions know. Any account may say it.
inline constexpr std::string_view kNoLimits =
    "SET SESSION sql_select_limit=18446744073709551615, max_join_size=18446744073709551615, sql_big_selects=1 "
    "/*M!100100 , max_statement_time=0 */ /*!50708 , max_execution_time=0 */";

}  // namespace guestagent::mysql
