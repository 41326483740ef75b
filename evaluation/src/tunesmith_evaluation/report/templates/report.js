
for (const button of document.querySelectorAll("[data-copy]")) {
  const source = document.getElementById(button.dataset.copy);
  button.addEventListener("click", async () => {
    const label = button.firstChild;
    try {
      await navigator.clipboard.writeText(source.textContent);
      label.textContent = "Copied";
    } catch {
      // Without leave to write to the clipboard, the text is marked, so that a key copies it.
      getSelection().selectAllChildren(source);
      label.textContent = "Marked: copy it with the keyboard";
    }
    setTimeout(() => { label.textContent = "Copy"; }, 3000);
  });
}
