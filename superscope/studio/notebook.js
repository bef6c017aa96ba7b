// The door of a notebook: a run's page in a frame of the cell, whose questions go on to the kernel, and answers back.
// The page comes from the kernel too, so that a saved notebook holds this file and not the page.

export default {
  render({ model, el }) {
    // No UUID: browsers make none on a page that came over plain HTTP from another machine.
    const cell = String(Math.random());
    const frame = document.createElement("iframe");
    frame.title = "A run in Superscope";
    // Text of a corpus is shown in there: whatever it might do, the notebook is another origin to it.
    frame.sandbox = "allow-scripts allow-downloads";
    frame.style.cssText = `width: 100%; height: ${model.get("height")}px; border: 0`;
    frame.style.colorScheme = document.body.dataset.jpThemeLight === "false" ? "dark" : "light";
    let address;
    let port;
    const hear = (answer) => {
      if (answer.cell !== cell) return;
      if (answer.number !== "page") {
        port?.postMessage(answer);
      } else if (answer.error !== undefined) {
        el.textContent = answer.error;
      } else {
        address = URL.createObjectURL(new Blob([answer.value], { type: "text/html" }));
        frame.src = address;
      }
    };
    const greet = (event) => {
      if (event.source !== frame.contentWindow || event.data !== "superscope") return;
      const channel = new MessageChannel();
      port = channel.port1;
      port.onmessage = ({ data }) => model.send({ ...data, cell });
      frame.contentWindow.postMessage("superscope", "*", [channel.port2]);
    };
    const resize = () => (frame.style.height = `${model.get("height")}px`);
    model.on("msg:custom", hear);
    model.on("change:height", resize);
    addEventListener("message", greet);
    el.append(frame);
    model.send({ cell, number: "page", ask: "page" });
    return () => {
      model.off("msg:custom", hear);
      model.off("change:height", resize);
      removeEventListener("message", greet);
      if (address) URL.revokeObjectURL(address);
    };
  },
};
