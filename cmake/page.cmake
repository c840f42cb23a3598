# The chat page, embedded: src/serve/page's own files and its libraries, which are Debian's. A file is known by the
# path of its request; embed_page.cmake turns them into one source with a table.

# ferry_page_files(OUTPUT): a command that makes OUTPUT, which defines page_files().
function(ferry_page_files output)
  set(lines "")
  set(inputs "")
  macro(embed path type file)
    if(NOT EXISTS "${file}")
      message(FATAL_ERROR "the chat page needs ${file}: install Debian's libjs-marked, node-dompurify, libjs-katex, "
                          "fonts-katex and libjs-highlight.js (packages.txt)")
    endif()
    string(APPEND lines "${path} ${type} ${file}\n")
    list(APPEND inputs "${file}")
  endmacro()

  set(own ${CMAKE_SOURCE_DIR}/src/serve/page)
  embed(/ text/html ${own}/index.html)
  file(GLOB files CONFIGURE_DEPENDS ${own}/*.js ${own}/*.css ${own}/*.svg)
  foreach(file IN LISTS files)
    get_filename_component(name ${file} NAME)
    if(name MATCHES "\\.js$")
      embed(/page/${name} text/javascript ${file})
    elseif(name MATCHES "\\.css$")
      embed(/page/${name} text/css ${file})
    else()
      embed(/page/${name} image/svg+xml ${file})
    endif()
  endforeach()
  set(share /usr/share)
  embed(/page/lib/marked.js text/javascript ${share}/javascript/marked/marked.umd.min.js)
  embed(/page/lib/purify.js text/javascript ${share}/nodejs/dompurify/dist/purify.min.js)
  embed(/page/lib/highlight.js text/javascript ${share}/javascript/highlight.js/highlight.min.js)
  embed(/page/lib/katex.js text/javascript ${share}/javascript/katex/katex.js)
  embed(/page/lib/katex.css text/css ${share}/javascript/katex/katex.min.css)
  file(GLOB fonts ${share}/fonts/truetype/katex/*.woff2)
  foreach(file IN LISTS fonts)
    get_filename_component(name ${file} NAME)
    embed(/page/lib/fonts/${name} font/woff2 ${file})
  endforeach()

  set(list ${output}.list)
  file(CONFIGURE OUTPUT ${list} CONTENT "${lines}" @ONLY)
  add_custom_command(OUTPUT ${output}
    COMMAND ${CMAKE_COMMAND} -DLIST=${list} -DOUTPUT=${output} -P ${CMAKE_SOURCE_DIR}/cmake/embed_page.cmake
    DEPENDS ${list} ${inputs} ${CMAKE_SOURCE_DIR}/cmake/embed_page.cmake
    COMMENT "Embedding the chat page")
endfunction()
