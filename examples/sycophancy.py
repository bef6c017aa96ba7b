"""Find sycophancy in the model that has it planted, take it away, and see what it cost.

python examples/sycophancy.py [MODEL]
"""

import sys

import superscope as ss

report = ss.studies.Sycophancy(model=sys.argv[1] if len(sys.argv) > 1 else "sycophant", items=240).run()
for sentence in report.findings:
    print(sentence)
edits = report.tables["edits"]
for name, wrong, right, kl in zip(edits["edit"], edits["r_wrong"], edits["r_right"], edits["kl"]):
    print(f"{name:16} wrong views {wrong:.2f}  right views {right:.2f}  other text {kl:.4f} nats a token")
