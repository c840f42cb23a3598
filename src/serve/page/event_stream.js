// Server-sent events of a response's body: the data of each.

/// Yields the data of each event; comments (keep-alives) and other fields are passed over. An event that the end of
/// the stream cuts off is not one.
export async function* readEvents(body) {
  let rest = "";
  let data = [];
  for await (const text of texts(body)) {
    const lines = (rest + text).split(/\r\n|\n|\r(?!$)/);  // a \r at the end may be half of a line's end
    rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (data.length > 0) yield data.join("\n");
        data = [];
      } else if (line.startsWith("data:")) {
        data.push(line.slice(line[5] === " " ? 6 : 5));
      }
    }
  }
}

async function* texts(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {});  // who stops reading lets the server know; it may have gone already
  }
}
