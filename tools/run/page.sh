# ./run test page [TEST...]: the chat page in headless Chromium. Sourced by ./run, whose functions it uses.
. tools/run/pypi.sh

# The package on PyPI that carries axe-core 4.12.1 (MPL-2.0), which looks for what readers and keyboards trip over.
axe_package=axe-playwright-python==0.1.8
axe_file=axe_playwright_python/axe.min.js
axe_sha256=84494fec757e4710dc751c8d7a636e457f4532f08f85c86dc9070133fbff53bc

test_page() {
  packages build page
  build_program
  local axe
  axe=$(cache_folder $axe_package)
  fetch_file $axe_package $axe_file $axe_sha256 "$axe"
  say "Training a tiny model for it"
  tools/tiny_model.sh build/ferry build/page_model --checkpoint.chat_template=configs/demo_chat.jinja | tee build/page_model.txt | tail -n 1
  say "The chat page in Chromium"
  python3 -B tests/page/page_test.py build --axe "$axe/axe.min.js" --model "$(tail -n 1 build/page_model.txt)" "$@"
}
