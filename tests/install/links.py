"""Every link of the pages below a folder leads to a file that is there: links.py FOLDER"""

import re
import sys
from pathlib import Path

folder = Path(sys.argv[1])
pages = list(folder.rglob("*.md"))
links = [(page, target) for page in pages for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())]
broken = [f"{page}: {target}" for page, target in links
          if not target.startswith("http") and not (page.parent / target).exists()]
print("\n".join(broken))
print(f"{len(pages)} pages, {len(links)} links, {len(broken)} broken")
sys.exit(1 if broken or len(pages) < 8 or len(links) < 8 else 0)
