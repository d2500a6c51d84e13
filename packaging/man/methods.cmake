# Fills @METHODS@ of a manual page: -DPROGRAM= the program, -DIN= the page's source, -DOUT= the page.
execute_process(COMMAND ${PROGRAM} help methods OUTPUT_VARIABLE rows COMMAND_ERROR_IS_FATAL ANY)
string(REPLACE "-" "\\-" rows "${rows}")
# A name begins its line, with its params behind it; the sentence is indented below it.
string(REGEX REPLACE "(^|\n)([a-z_]+) *([^\n]*)\n +" "\\1.TP\n\\\\fB\\2\\\\fR \\3\n" rows "${rows}")
string(REPLACE " \n" "\n" rows "${rows}")
file(READ ${IN} text)
string(REPLACE "@METHODS@\n" "${rows}" text "${text}")
file(WRITE ${OUT} "${text}")
