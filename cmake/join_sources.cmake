# The builds that look for mistakes (with sanitizers, for another processor) compile several sources as one: most of
# what compiling takes there is headers and what is made of their templates, for each source anew. The ordinary build
# compiles each by itself, so that a change makes one of them anew and what a file forgets to include is found.
option(FERRY_JOIN_SOURCES "Compile several sources as one" OFF)
if(FERRY_SANITIZE OR FERRY_SANITIZE_THREADS OR CMAKE_CROSSCOMPILING)
  set(FERRY_JOIN_SOURCES ON)
endif()

# ferry_join_sources(TARGET FILE...): of these sources of a target, those that may be joined are (join_sources.awk), but
# for what has options of its own.
function(ferry_join_sources target)
  if(NOT FERRY_JOIN_SOURCES)
    return()
  endif()
  set(sources "")
  foreach(source IN LISTS ARGN)
    get_source_file_property(options ${source} COMPILE_OPTIONS)
    if(NOT options)
      list(APPEND sources ${source})
    endif()
  endforeach()
  execute_process(COMMAND awk -v most=8 -f ${CMAKE_SOURCE_DIR}/cmake/join_sources.awk ${sources}
    OUTPUT_VARIABLE groups OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  string(REPLACE "\n" ";" groups "${groups}")
  foreach(entry IN LISTS groups)
    string(REGEX MATCH "^([0-9]+) (.*)$" entry "${entry}")
    set_source_files_properties("${CMAKE_MATCH_2}" PROPERTIES UNITY_GROUP ${CMAKE_MATCH_1})
  endforeach()
  target_compile_options(${target} PRIVATE -Wno-error=shadow)  # the names of one file's shadow those of another
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # It takes what has a file of its own for a header, whose unnamed namespace would be each reader's.
    target_compile_options(${target} PRIVATE -Wno-subobject-linkage)
  endif()
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
endfunction()
