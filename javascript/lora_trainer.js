// The extension's browser code. Every id, class and global name begins with "lora-trainer-" or "loraTrainer".
