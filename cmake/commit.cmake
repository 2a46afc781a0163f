cmake_minimum_required(VERSION 3.25)
# Writes OUTPUT, where the commit of SOURCE stands, with "+changes" when the tree differs from it.
execute_process(COMMAND git -C ${SOURCE} describe --always --abbrev=40 --dirty=+changes --exclude=*
                OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE status)
if(NOT status EQUAL 0)
  set(commit "unknown")
endif()
file(CONFIGURE OUTPUT ${OUTPUT} CONTENT "namespace kvlab { extern const char* const commit = \"@commit@\"; }\n" @ONLY)
