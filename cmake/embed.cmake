# cmake -DIN=FILE -DOUT=FILE.cc -DNAME=kName -P embed.cmake: the bytes of IN as the C++ array NAME and the number NAMESize.
file(READ ${IN} hex HEX)
string(LENGTH "${hex}" digits)
math(EXPR size "${digits} / 2")
string(REGEX REPLACE "(................................)" "\\1\n" hex "${hex}")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "'\\\\x\\1'," bytes "${hex}")
file(WRITE ${OUT} "extern const char ${NAME}[];\nextern const unsigned long ${NAME}Size;\nconst char ${NAME}[] = {\n${bytes}'\\0'};\nconst unsigned long ${NAME}Size = ${size};\n")
