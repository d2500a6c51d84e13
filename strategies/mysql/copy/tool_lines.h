// What a backup tool says, without what is not the agent's to tell.
//
// While it waits for the queries of others it says them, whole: with the values in them, over several lines where they
// have several, and without a line end after them, so that its next words stand in the same line. Of such a query only
// number and age are kept.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace guestagent::mysql {

class ToolLines {
 public:
  // The next line as it came; answers none, one or two.
  std::vector<std::string> take(std::string_view line);

 private:
  bool in_query_ = false;
};

}  // namespace guestagent::mysql
